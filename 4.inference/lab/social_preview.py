"""The picture that GitHub shows where the repository is shared: upload it under Settings, Social preview.

    python 4.inference/lab/social_preview.py --output social_preview.png

Needs Chromium: python -m playwright install chromium
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from tokenizer_lab.drawing import Drawing
from video_tokenizer.training.command_line import parse_config, run_script
from world_lab.overview import Step, clear_step, draw_tokens
from world_model.world import WorldModel

sys.path.append(str(Path(__file__).resolve().parents[2] / "tests"))
from page_driver import chromium

WIDTH, HEIGHT = 1280, 640
"""what GitHub asks for"""


@dataclass(frozen=True)
class PreviewConfig:
    """Draw the social preview of the repository."""

    world: str = "assets/worlds/breakout"
    """folder of the world of which one step is shown"""
    output: str = "social_preview.png"
    """file to write"""


def draw_preview(step: Step) -> Drawing:
    """The title above one step of a world: a real frame, its 64 tokens, a key, and the frame that the world predicts."""
    drawing = Drawing(WIDTH, HEIGHT, "A real frame of Breakout, its tokens, and the next frame as a world model imagines it.")
    drawing.rect(0, 0, WIDTH, HEIGHT, "paper")
    drawing.text(WIDTH / 2, 76, "Build a playable world model, from scratch", 46, bold=True)
    drawing.text(WIDTH / 2, 140, "A course in PyTorch that runs on your laptop's CPU", 30, "muted")
    y, side, columns = 210, 320, (60, 480, 900)
    drawing.frame(columns[0], y, step.frame, side / step.frame.shape[1])
    draw_tokens(drawing, columns[1], y, step.tokens, side / 8)
    drawing.frame(columns[2], y, step.predicted, side / step.predicted.shape[1])
    for left, right in ((columns[0], columns[1]), (columns[1], columns[2])):
        drawing.arrow(left + side + 16, y + side / 2, right - 16, y + side / 2)
    drawing.text(columns[2] - 50, y + side / 2 - 30, step.key, 24, "accent", bold=True)
    for x, text in zip(columns, ("a real frame", "64 tokens", "the next frame, imagined"), strict=True):
        drawing.text(x + side / 2, y + side + 36, text, 26)
    return drawing


def main() -> None:
    config = parse_config(PreviewConfig)
    picture = draw_preview(clear_step(WorldModel.load(config.world, "cpu"))).svg("dark")
    with chromium() as browser:
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.set_content(f'<body style="margin:0">{picture}</body>')
        page.screenshot(path=config.output)
    print(f"the preview is {config.output}")


if __name__ == "__main__":
    run_script(main)
