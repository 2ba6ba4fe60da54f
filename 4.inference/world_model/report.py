"""One page about a finished world: what it dreams, how well, from which commands; a single HTML file with its pictures inside."""

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from video_tokenizer.data.clip_store import ClipStore, open_clip_store
from video_tokenizer.data.clips import split_episodes, to_frames, to_video
from video_tokenizer.figures import DIFFERENCE, difference, image_grid, save_picture
from video_tokenizer.training.atomic_files import write_text_atomically
from video_tokenizer.training.checkpoint import REPOSITORY
from video_tokenizer.training.results import read_json
from world_model.build_config import Paths
from world_model.evaluation.table import table_rows
from world_model.stages import Stage, duration, shown_command
from world_model.world import WorldModel

PAGE = Path(__file__).with_name("report_page.html")
GALLERY_FRAMES = (1, 2, 4, 8)
"""dreamed frames under each held action that the gallery shows"""


def write_report(paths: Paths, stages: Sequence[Stage], remembered: Mapping[str, Mapping[str, Any]]) -> Path:
    """Draw the pictures of a finished world and write report.html into its folder. Returns the page's path.

    stages: what was run; remembered: stage name -> seconds and peak memory, as `run_stages` returns them.
    """
    world = WorldModel.load(paths.world, "cpu")
    store = open_clip_store(paths.data)
    metrics = read_json(paths.world / "metrics.json")
    save_picture(paths.world / "reconstructions.png", reconstruction_strip(world, store))
    sections = [
        figure(paths.world / "dream.gif", "A game that was never played: the world, steered by the keys below each frame.")
    ]
    if (paths.world / "beside.gif").exists():
        sections.append(
            figure(paths.world / "beside.gif", "The dream beside the real game, from the same frames under the same keys.")
        )
    if world.num_actions:
        save_picture(paths.world / "actions.png", action_gallery(world))
        what = "Every action held from the same start frame; each row is another dream."
        sections.append(figure(paths.world / "actions.png", what))
    what = "Frames of an episode that training did not see, and what is left of them after the way through the tokens."
    sections.append(figure(paths.world / "reconstructions.png", what))
    seconds = sum(entry["seconds"] for entry in remembered.values())
    peak = max((entry["peak_memory_mib"] or 0 for entry in remembered.values()), default=0)
    page = PAGE.read_text().format(
        title=html.escape(f"A world of {store.env_id or store.path.name}, learned in {duration(seconds)}"),
        subtitle=html.escape(f"{len(store.frames):,} frames, {world.action_kind} actions, peak memory {peak:,} MiB"),
        figures="\n".join(sections),
        metrics=metrics_table(metrics),
        reasons="".join(f"<li>{html.escape(f'{name}: {why}')}</li>" for name, why in metrics.get("reasons", {}).items()),
        stages=stage_table(stages, remembered),
        play=html.escape(shown_command([str(Path("4.inference/play.py")), "--world", shown_path(paths.world)])),
    )  # fmt: skip
    write_text_atomically(paths.world / "report.html", page)
    return paths.world / "report.html"


def shown_path(path: Path) -> str:
    """A path as it is called from the repository's root, where that is shorter."""
    path = path.resolve()
    return str(path.relative_to(REPOSITORY)) if path.is_relative_to(REPOSITORY) else str(path)


@torch.no_grad()
def reconstruction_strip(world: WorldModel, store: ClipStore, num_frames: int = 6) -> np.ndarray:
    """Rows original, reconstruction, difference of evenly spaced frames of a validation episode. uint8 (height, width, 3)."""
    config = world.tokenizer.config
    _, validation = split_episodes(store, config.validation_share, config.seed)
    start, stop = store.episodes[validation[0]]
    clip = np.array(store.frames[start : min(stop, start + 10 * num_frames)])
    drawn = to_frames(world.tokenizer(to_video(clip[None], world.device)).reconstruction)[0]
    chosen = np.linspace(0, len(clip) - 1, min(num_frames, len(clip))).astype(int)
    rows = [("original", clip[chosen]), ("reconstruction", drawn[chosen]), (DIFFERENCE, difference(clip, drawn)[chosen])]
    return image_grid(rows, column_labels=[f"t = {t}" for t in chosen])


def action_gallery(world: WorldModel) -> np.ndarray:
    """One row per action: the start frame, and the dream after 1, 2, 4 and 8 frames under it. uint8 (height, width, 3)."""
    count, start = world.num_actions, len(world.start_frames) // 2
    starts, known = np.stack([world.start_frames[start]] * count), np.stack([world.start_actions[start]] * count)
    held = np.repeat(np.arange(count)[:, None], max(GALLERY_FRAMES), axis=1)
    dreams = world.dream(starts, known, held)
    keys = {number: name for name, number in world.action_map.items()}
    rows = []
    for action, name in enumerate(world.action_names):
        means = f"\nkey {keys[action]}" if action in keys and world.action_kind == "latent" else ""
        label = f"{action}: {name}{means}" if world.action_kind == "latent" else name
        rows.append((label, np.concatenate([starts[action, -1:], dreams[action, np.array(GALLERY_FRAMES) - 1]])))
    return image_grid(rows, column_labels=["start", *(f"after {frames}" for frames in GALLERY_FRAMES)])


def figure(path: Path, caption: str) -> str:
    """A picture inside the page, so that one file is all there is to send."""
    kind = "gif" if path.suffix == ".gif" else "png"
    content = base64.b64encode(path.read_bytes()).decode()
    text = html.escape(caption)
    return f'<figure><img src="data:image/{kind};base64,{content}" alt="{text}"><figcaption>{text}</figcaption></figure>'


def metrics_table(metrics: Mapping[str, Any]) -> str:
    """The evaluation's table, one row per metric, the controls beside the world."""
    rows = "".join(
        f"<tr><td><code>{html.escape(name)}</code></td>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>\n"
        for name, *cells in table_rows(metrics)
    )
    return f"<tr><th>metric</th><th>this world</th><th>untrained</th><th>copy last frame</th></tr>\n{rows}"


def stage_table(stages: Sequence[Stage], remembered: Mapping[str, Mapping[str, Any]]) -> str:
    """What was run: chapter, command, minutes, memory, and what was learned."""
    rows = ["<tr><th>stage</th><th>time</th><th>peak memory</th></tr>"]
    for stage in stages:
        entry = remembered[stage.name]
        memory = f"{entry['peak_memory_mib']:,} MiB" if entry["peak_memory_mib"] else ""
        learned = f"<p>{html.escape(stage.learned())}</p>" if stage.learned() else ""
        rows.append(
            f"<tr><td>{html.escape(stage.title)}{learned}<pre>{html.escape(shown_command(stage.command))}</pre></td>"
            f"<td>{duration(entry['seconds'])}</td><td>{memory}</td></tr>"
        )
    return "\n".join(rows)
