"""How well the sound fits the game: when it begins, which pitch it has, and how close its wave is."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from uses.sound.games import Heard
from uses.sound.model import SoundModel, SoundStream, to_samples, to_wave
from video_tokenizer.games.detectors import detect_ball, game_facts
from video_tokenizer.games.emulator import CHUNK, SILENT_LEVEL
from video_tokenizer.metrics import share

AUDIBLE = 10.0
"""standard deviation of a chunk's samples from which on it sounds; the Atari's square waves have 30 and silence has 0"""
TOLERANCE = 2
"""frames by which a sound may begin too early or too late"""
FARTHEST = 8
"""largest offset that the histogram shows, in frames"""
APART = 3.0
"""pixels between the dreamed ball and the game's from which on a dream shows something else"""
SHIFTS = 100
"""random shifts that make the baseline of chance"""


def sounding(sound: np.ndarray) -> np.ndarray:
    """(F, chunks * 512) uint8 -> (F * chunks,) bool: the chunks that can be heard."""
    return sound.reshape(-1, CHUNK).std(axis=1) > AUDIBLE


def onsets(sound: np.ndarray) -> np.ndarray:
    """The frames in which a sound begins after silence, once for each time. sound: (F, chunks * 512) uint8."""
    heard = sounding(sound)
    begins = np.flatnonzero(heard[1:] & ~heard[:-1]) + 1
    return begins // (sound.shape[1] // CHUNK)


def matched(real: np.ndarray, predicted: np.ndarray, farthest: int) -> list[tuple[int, int]]:
    """Pairs of onsets, the closest first and each onset once: [(index in real, index in predicted)]."""
    distance = np.abs(real[:, None] - predicted[None])  # (R, P)
    pairs = []
    for index in np.argsort(distance, axis=None, kind="stable"):
        one, other = (int(place) for place in np.unravel_index(index, distance.shape))
        if distance[one, other] > farthest:
            break
        if all(one != left and other != right for left, right in pairs):
            pairs.append((one, other))
    return pairs


def onset_scores(real: Sequence[np.ndarray], predicted: Sequence[np.ndarray]) -> dict[str, Any]:
    """Compare the sounds of games, each (F, chunks * 512) uint8.

    found: share of the real onsets with a predicted one within `TOLERANCE` frames. false: share of the predicted onsets without
    such a real one. in_silence: share of those with no real sound at all so close by. offsets: how many frames the predicted
    onset is late (+) or early (-), counted; "none" within `FARTHEST`.
    """
    offsets: dict[str, int] = {str(offset): 0 for offset in range(-FARTHEST, FARTHEST + 1)} | {"none": 0}
    num_real = num_predicted = num_found = in_silence = 0
    for there, here in zip(real, predicted, strict=True):
        begins, heard = onsets(there), onsets(here)
        num_real, num_predicted = num_real + len(begins), num_predicted + len(heard)
        num_found += len(matched(begins, heard, TOLERANCE))
        pairs = matched(begins, heard, FARTHEST)
        for one, other in pairs:
            offsets[str(heard[other] - begins[one])] += 1
        offsets["none"] += len(begins) - len(pairs)
        sounds = np.flatnonzero(sounding(there).reshape(len(there), -1).any(axis=1))
        in_silence += sum(1 for frame in heard if not (np.abs(sounds - frame) <= TOLERANCE).any())
    return {
        "onsets": num_real,
        "predicted_onsets": num_predicted,
        "found": share(num_found, num_real),
        "false": share(num_predicted - num_found, num_predicted),
        "in_silence": share(in_silence, num_predicted),
        "offsets": offsets,
    }


def baselines(real: Sequence[np.ndarray], predicted: Sequence[np.ndarray], seed: int) -> dict[str, dict[str, float]]:
    """Of "chance", the predicted sounds of each game shifted by a random time, around its end to its beginning, the mean of
    `SHIFTS` times; and of "silence", no sound at all. A shift by `TOLERANCE` frames or less would leave the truth in place."""
    rng = np.random.default_rng(seed)

    def shifted(sound: np.ndarray) -> np.ndarray:
        shift = rng.integers(TOLERANCE + 1, max(TOLERANCE + 2, len(sound) - TOLERANCE))
        return np.roll(sound, int(shift), axis=0)

    by_chance = [onset_scores(real, [shifted(sound) for sound in predicted]) for _ in range(SHIFTS)]
    names = ("found", "false", "in_silence")
    chance = {name: float(np.mean([scores[name] for scores in by_chance])) for name in names}
    silence = onset_scores(real, [np.full_like(sound, SILENT_LEVEL) for sound in real])
    return {"chance": chance, "silence": {name: silence[name] for name in names}}


def frames_alike(dreamed: np.ndarray, real: np.ndarray, env_id: str | None) -> np.ndarray:
    """For how many frames dreams (S, K, H, W, 3) show what happened in the games: until both show a ball, `APART` pixels or more
    from each other. Of a game whose ball nobody can find, all. Returns (S,)."""
    if not env_id or (facts := game_facts(env_id)) is None or facts.ball is None:
        return np.full(len(real), real.shape[1])
    places = (np.stack([detect_ball(frames, env_id) for frames in videos]) for videos in (dreamed, real))
    apart = np.linalg.norm(np.subtract(*places), axis=-1) >= APART  # (S, K), False where one of them has no ball
    return np.where(apart.any(axis=1), apart.argmax(axis=1), real.shape[1])


def pitches(sound: np.ndarray) -> np.ndarray:
    """The strongest of the frequencies 60, 120, 180, ... Hz in each chunk, as its number; (F * chunks,)."""
    chunks = sound.reshape(-1, CHUNK).astype(np.float32)
    return np.abs(np.fft.rfft(chunks - chunks.mean(axis=1, keepdims=True))).argmax(axis=1)


@torch.no_grad()
def tokenizer_scores(model: SoundModel, games: Iterable[np.ndarray]) -> dict[str, float]:
    """snr_db: power of the sound, without its mean, over that of the error. pitch: share of the chunks that sound whose strongest
    frequency is the same once decoded. codes_used: how many tokens occur. games: each (F, chunks * 512) uint8."""
    device = next(model.parameters()).device
    power = error = same = heard = 0
    used: set[int] = set()
    for sound in games:
        encoded = model.tokenizer.encode(to_wave(sound.reshape(1, -1), device))
        decoded = to_samples(model.tokenizer.decode(encoded.codes))
        used |= set(encoded.indices.unique().tolist())
        there, here = sound.reshape(-1).astype(float), decoded.reshape(-1).astype(float)
        power, error = power + ((there - there.mean()) ** 2).sum(), error + ((there - here) ** 2).sum()
        audible = sounding(sound)
        same += int((pitches(sound) == pitches(decoded))[audible].sum())
        heard += int(audible.sum())
    ratio = float(10 * np.log10(max(power, 1e-9) / max(error, 1e-9)))
    return {"snr_db": ratio, "pitch": share(same, heard), "codes_used": len(used)}


def played_sound(model: SoundModel, codes: torch.Tensor, threshold: float | None = None) -> np.ndarray:
    """The sound of a game (F, N, D), which the network makes from its frames alone: (F, chunks * 512) uint8."""
    codes = codes.to(next(model.parameters()).device)
    stream = SoundStream(model, codes[:1], *([] if threshold is None else [threshold]))
    return np.stack([stream.next(frame) for frame in codes])


def game_scores(model: SoundModel, heard: Heard, episodes: Iterable[np.ndarray], seed: int = 0) -> dict[str, Any]:
    """All scores of these episodes (start, stop), with the baselines."""
    ranges = [slice(int(start), int(stop)) for start, stop in episodes]
    real = [heard.sound[part] for part in ranges]
    predicted = [played_sound(model, heard.codes[part]) for part in ranges]
    return tokenizer_scores(model, real) | onset_scores(real, predicted) | {"baselines": baselines(real, predicted, seed)}
