"""Claims about the drawings of the texts: SVG files that every browser reads, in two looks, with frames true to the pixel."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from script_runner import call
from structure_checks import REPOSITORY

from tokenizer_lab.drawing import DARK, LIGHT, Drawing, pixel_paths
from world_lab.overview import story_css

DRAWINGS = sorted((REPOSITORY / "assets").glob("**/*.svg"))


def painted(paths, height, width):
    """The picture that `pixel_paths` draws: uint8 (H, W, 3), 7 where nothing is painted."""
    frame = np.full((height, width, 3), 7, np.uint8)
    for color, shape in re.findall(r'fill="#(\w{6})" d="([^"]+)"', paths):
        for x, y, w, h in re.findall(r"M(\d+) (\d+)h(\d+)v(\d+)h", shape):
            frame[int(y) : int(y) + int(h), int(x) : int(x) + int(w)] = list(bytes.fromhex(color))
    return frame


def labels(svg):
    """The words of a drawing, without the tokens and frames, which may differ a little between machines."""
    return [text for text in ElementTree.fromstring(svg).itertext() if text.strip() and not text.strip().isdigit()]


def test_a_frame_as_paths_has_every_pixel_of_the_frame():
    frame = np.random.default_rng(0).integers(0, 2, (12, 9, 3), dtype=np.uint8) * 200
    assert np.array_equal(painted(pixel_paths(frame), 12, 9), frame)
    assert pixel_paths(np.zeros((64, 64, 3), np.uint8)) == '<path fill="#000000" d="M0 0h64v64h-64z"/>'


def test_a_drawing_is_saved_once_for_each_look_with_that_looks_colors(tmp_path):
    drawing = Drawing(100, 50, "a box & an arrow")
    drawing.box(5, 5, 40, 40, "1 < 2 $", "a note")
    drawing.arrow(50, 25, 90, 25, "(B, T)")
    drawing.save(tmp_path / "small")
    for name, theme in (("light", LIGHT), ("dark", DARK)):
        text = (tmp_path / f"small_{name}.svg").read_text()
        ElementTree.fromstring(text)
        assert theme["ink"] in text and "1 &lt; 2 $<" in text and "a box &amp; an arrow" in text


@pytest.mark.parametrize("path", DRAWINGS, ids=lambda path: path.name)
def test_a_drawing_of_the_texts_is_well_formed_complete_and_small(path):
    root = ElementTree.fromstring(path.read_text(encoding="utf-8"))
    other = path.name.replace("_light.", "_dark.") if "_light." in path.name else path.name.replace("_dark.", "_light.")
    assert other != path.name and (path.parent / other).exists()
    assert root.find("{http://www.w3.org/2000/svg}title") is not None
    assert path.stat().st_size <= 300_000
    sizes = [float(text.attrib["font-size"]) for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert min(sizes) * 830 / float(root.attrib["width"]) >= 11  # at the width of a page


def test_the_drawings_of_the_overview_come_from_one_command(tmp_path):
    assert call(REPOSITORY / "4.inference" / "lab" / "overview.py", "--output", tmp_path) == 0
    for name in ("pipeline", "three_networks"):
        kept, drawn = ((folder / f"{name}_light.svg").read_text(encoding="utf-8") for folder in (REPOSITORY / "assets", tmp_path))
        assert labels(kept) == labels(drawn)


def test_the_animation_starts_with_the_whole_picture_and_stops_for_whoever_asks():
    css = story_css()
    assert "prefers-reduced-motion:reduce" in css
    later_only = {"flash0", "flash1", "flash2", "flash3", "back", "renewed"}
    begins = dict(re.findall(r"@keyframes (\w+)\{0%\{opacity:(\d)\}", css))
    assert begins == {name: "0" if name in later_only else "1" for name in begins} and len(begins) > 20
