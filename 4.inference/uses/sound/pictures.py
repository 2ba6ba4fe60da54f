"""The picture of a world's sound: what the emulator plays and what the network plays, and how far apart they begin."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from uses.sound.model import CHUNK
from uses.sound.scores import FARTHEST, pitches, sounding
from video_tokenizer.figures import save_figure, style
from video_tokenizer.games.emulator import SOUND_RATE

COLORS = {"emulator": "#9aa4b2", "network": "#d9622b", "real games": "#3b6fb6", "dreams": "#d9622b"}


def save_sound(path: Path, real: np.ndarray, predicted: np.ndarray, offsets: Mapping[str, Mapping[str, int]]) -> None:
    """real, predicted: the sound of one game, (F, chunks * 512) uint8. offsets: label -> `offsets` of `onset_scores`."""
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    for name, sound, size in (("emulator", real, 60), ("network", predicted, 9)):
        chunks = np.flatnonzero(sounding(sound))
        hertz = pitches(sound)[chunks] * SOUND_RATE / CHUNK
        left.scatter(chunks * CHUNK / SOUND_RATE, hertz, size, COLORS[name], marker="s", label=name, linewidths=0)
    left.set(xlabel="seconds", ylabel="pitch, Hz")
    left.legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    places = np.arange(-FARTHEST, FARTHEST + 1)
    for number, (name, counts) in enumerate(offsets.items()):
        shares = [counts[str(place)] / max(1, sum(counts.values())) for place in places]
        right.bar(places + 0.4 * number - 0.2, shares, 0.4, color=COLORS[name], label=name)
    right.set(xlabel="frames too late", ylabel="share of the emulator's onsets")
    right.legend(frameon=False)
    for axes in (left, right):
        style(axes)
    save_figure(path, figure)
