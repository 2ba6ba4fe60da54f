"""Claims about the drawings of the texts: SVG files that every browser reads, in two looks, with frames true to the pixel."""

import json
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure
from script_runner import call
from structure_checks import REPOSITORY

from action_lab.draw import save_collapse
from dynamics_lab.variant_drawings import BEFORE, SAMPLED, kept_by_calls
from dynamics_lab.variant_drawings import save_drawings as save_dynamics_drawings
from tokenizer_lab.chapter_drawings import (
    fsq_by_hand,
    paddle_strips,
    save_fsq_dials,
    save_picture_delay,
    save_space_time_attention,
    save_straight_through,
)
from tokenizer_lab.comparison import save_quality_against_bits
from tokenizer_lab.drawing import DARK, LIGHT, Drawing, pixel_paths, save_chart
from tokenizer_lab.variant_drawings import save_drawings
from video_tokenizer.figures import ACCENT
from video_tokenizer.games.emulator import Game
from video_tokenizer.registry import VARIANTS
from video_tokenizer.training.checkpoint import load_checkpoint
from video_tokenizer.training.results import read_json
from world_lab.chapter_drawings import BUTTONS, CARDS
from world_lab.chapter_drawings import save_drawings as save_drawings_of_chapter_4
from world_lab.draw import save_drift, save_sampling_steps
from world_lab.overview import story_css
from world_lab.planning import save_planning
from world_model.world import WorldModel

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


def without_frames(svg):
    """A drawing without what depends on a world's weights: its frames, the rings around their balls, its actions' names."""
    svg = re.sub(r'<g transform="[^"]+" shape-rendering="crispEdges">.*?</g>', "", svg, flags=re.DOTALL)
    return re.sub(r">\d [^<]+<|<circle [^>]+>", "", svg)


def test_a_frame_as_paths_has_every_pixel_of_the_frame():
    frame = np.random.default_rng(0).integers(0, 2, (12, 9, 3), dtype=np.uint8) * 200
    assert np.array_equal(painted(pixel_paths(frame), 12, 9), frame)
    assert pixel_paths(np.zeros((64, 64, 3), np.uint8)) == '<path fill="#000000" d="M0 0h64v64h-64z"/>'


def test_a_magnified_ball_that_is_too_bright_to_double_stays_red():
    frame = np.zeros((20, 20, 3), np.uint8)
    frame[10, 10] = 200, 72, 72
    drawing = Drawing(200, 200, "a ball")
    drawing.magnifier(frame, (10, 10), (0, 0), 6)
    assert "#ff9090" in drawing.svg("light").lower()  # (255, 144, 144); 2 * 200 in 8 bits would be 144


def test_a_drawing_is_saved_once_for_each_look_with_that_looks_colors(tmp_path):
    drawing = Drawing(100, 50, "a box & an arrow")
    drawing.box(5, 5, 40, 40, "1 < 2 $", "a note")
    drawing.arrow(50, 25, 90, 25, "(B, T)")
    drawing.save(tmp_path / "small")
    for name, theme in (("light", LIGHT), ("dark", DARK)):
        text = (tmp_path / f"small_{name}.svg").read_text()
        ElementTree.fromstring(text)
        assert theme["ink"] in text and "1 &lt; 2 $<" in text and "a box &amp; an arrow" in text


def test_a_chart_changes_its_colors_between_the_looks_and_nothing_else(tmp_path):
    figure = Figure(figsize=(4, 2))
    axes = figure.subplots()
    axes.plot([0, 1], [1, 0], color=ACCENT, label="a & b")
    axes.legend()
    save_chart(tmp_path / "chart", figure, "A line that falls & ends")
    light, dark = ((tmp_path / f"chart_{theme}.svg").read_text() for theme in ("light", "dark"))
    assert "a &amp; b</text>" in light and "<title>A line that falls &amp; ends</title>" in light
    assert LIGHT["accent"] in light and DARK["accent"] in dark and LIGHT["ink"] not in dark and ACCENT not in light
    for name in ("ink", "accent", "faint", "paper"):
        light, dark = light.replace(LIGHT[name], name), dark.replace(DARK[name], name)
    assert light == dark


def test_charts_of_the_texts_are_drawn_from_what_was_measured(tmp_path):
    save_collapse(tmp_path / "collapse", read_json(REPOSITORY / "assets/2.latent-action-model/collapse.json"))
    save_quality_against_bits(tmp_path / "comparison", read_json(REPOSITORY / "assets/1.video-tokenizer/comparison.json"))
    save_drift(tmp_path / "drift", read_json(REPOSITORY / "assets/4.inference/drift.json"))
    save_sampling_steps(tmp_path / "sampling_steps", read_json(REPOSITORY / "assets/4.inference/sampling_steps.json")["rows"])
    chapters = {"collapse": "2.latent-action-model", "comparison": "1.video-tokenizer"}
    for name in ("collapse", "comparison", "drift", "sampling_steps"):
        chapter = chapters.get(name, "4.inference")
        kept, drawn = ((folder / f"{name}_light.svg").read_text() for folder in (REPOSITORY / "assets" / chapter, tmp_path))
        assert labels(drawn) == labels(kept) and len(drawn) == pytest.approx(len(kept), rel=0.05)


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


def test_the_drawings_of_ideas_in_chapter_1_are_what_the_code_draws(tmp_path):
    for save in (save_fsq_dials, save_picture_delay, save_space_time_attention, save_straight_through):
        name = save.__name__.removeprefix("save_")
        save(tmp_path / name)
        for file in (f"{name}_light.svg", f"{name}_dark.svg"):
            kept = REPOSITORY / "assets" / "1.video-tokenizer" / file
            assert (tmp_path / file).read_text(encoding="utf-8") == kept.read_text(encoding="utf-8"), file


def test_every_variant_has_a_drawing_and_it_is_what_the_code_draws(tmp_path):
    starts = load_checkpoint(REPOSITORY / "assets/worlds/breakout/dynamics.pt", "dynamics")["start_frames"].numpy()
    save_drawings(tmp_path, starts[3, -1])
    kept = REPOSITORY / "assets" / "1.video-tokenizer" / "variants"
    drawn = sorted(path.name for path in tmp_path.iterdir())
    folders = [path.split(".")[1] for path in VARIANTS.values()]
    assert drawn == sorted(f"{folder}_{look}.svg" for folder in folders for look in ("light", "dark"))
    assert all((tmp_path / name).read_text(encoding="utf-8") == (kept / name).read_text(encoding="utf-8") for name in drawn)


def test_the_drawings_of_dynamics_variants_are_what_the_code_draws(tmp_path):
    save_dynamics_drawings(tmp_path)
    kept = REPOSITORY / "assets" / "3.dynamics-model" / "variants"
    drawn = sorted(path.name for path in tmp_path.iterdir())
    folders = [folder.name for folder in (REPOSITORY / "3.dynamics-model/dynamics_variants").iterdir() if folder.is_dir()]
    pages = sorted(folder for folder in folders if not folder.startswith("__"))
    assert drawn == [f"{page}_{look}.svg" for page in pages for look in ("dark", "light")]
    assert all((tmp_path / name).read_text(encoding="utf-8") == (kept / name).read_text(encoding="utf-8") for name in drawn)
    assert kept_by_calls(BEFORE, SAMPLED) == [4, 4] and kept_by_calls(BEFORE, BEFORE) == [8]


def test_the_drawings_of_chapter_4_are_what_the_code_draws_whatever_the_world_has_learned(tmp_path):
    world = WorldModel.load(REPOSITORY / "assets/worlds/breakout", "cpu")
    for name in save_drawings_of_chapter_4(tmp_path, world, "LEFT"):
        for file in (f"{name}_light.svg", f"{name}_dark.svg"):
            kept, drawn = (
                (folder / file).read_text(encoding="utf-8") for folder in (REPOSITORY / "assets/4.inference", tmp_path)
            )
            assert without_frames(kept) == without_frames(drawn) != drawn, file


def test_the_plan_of_the_play_page_has_its_buttons_cards_and_rows_of_the_table():
    page = REPOSITORY / "4.inference" / "world_model" / "play" / "page"
    labels_of_page = re.findall(r"label: \(.*?\) => (.+?), press", (page / "buttons.js").read_text())
    assert tuple(re.findall(r'"([^"]+)"\)?$', label)[0] for label in labels_of_page) == BUTTONS
    summaries = re.findall(r"<summary[^>]*>([^<]+?) <small>([^<]+?) ?<", (page / "index.html").read_text(encoding="utf-8"))
    assert dict(summaries[1:]) == CARDS and summaries[0][0] == "Actions"
    drawn = labels((REPOSITORY / "assets/4.inference/play_page_light.svg").read_text(encoding="utf-8"))
    assert {*BUTTONS, *CARDS, *CARDS.values(), "Actions", "Play the dream"} <= set(drawn)
    letters = [text for text in drawn if re.fullmatch("[A-Z]", text)]
    text = (REPOSITORY / "4.inference" / "README.md").read_text(encoding="utf-8")
    assert (
        sorted(letters)
        == ["A", *re.findall(r"^\| ([A-Z]) \| ", text.split("## Architecture")[0], re.MULTILINE)]
        == list("ABCDEFGHIJ")
    )


def test_the_marks_of_chapter_4s_architecture_are_its_solutions():
    text = (REPOSITORY / "4.inference" / "README.md").read_text(encoding="utf-8")
    svg = ElementTree.parse(REPOSITORY / "assets/4.inference/architecture_light.svg")
    marks = [part.strip() for part in svg.getroot().itertext() if part.strip().isdigit()]
    assert sorted(marks) == re.findall(r"^### (\d)\. ", text, re.MULTILINE)


def test_learning_is_drawn_again_from_the_frames_of_a_finished_training(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    np.savez(tmp_path / "frames.npz", steps=[0, 1000], original=frames[0], redrawn=frames, env_id="ALE/Breakout-v5")
    script = REPOSITORY / "1.video-tokenizer" / "lab" / "learning.py"
    assert call(script, "--checkpoint-dir", tmp_path, "--output", tmp_path) == 0
    assert "1,000 steps" in labels((tmp_path / "learning_light.svg").read_text(encoding="utf-8"))


def test_the_dials_show_the_chapters_worked_example():
    rows = fsq_by_hand()
    assert [digit for _, digit, _ in rows] == [6, 1, 2, 4] and [place for _, _, place in rows] == [1, 8, 40, 200]
    assert [round(bounded, 2) for bounded, _, _ in rows] == [2.23, -0.58, 0.0, 1.81]


def test_the_paddle_makes_half_of_its_way_before_delay_0_and_shows_the_next_key_from_delay_2_on():
    game = Game("ALE/Breakout-v5")
    nothing, left, right = (paddle_strips(game, key) for key in ("NOOP", "LEFT", "RIGHT"))
    game.close()
    assert nothing[1] == [0, 0, 3, 7, 12, 18, 21, 22, 23]  # 12 at the end of the step, then 6 more, as solution 2 says
    same = [np.array_equal(nothing[0][t], left[0][t]) and np.array_equal(nothing[0][t], right[0][t]) for t in range(9)]
    assert same == [True] * 6 + [False] * 3


def test_the_animation_starts_with_the_whole_picture_and_stops_for_whoever_asks():
    css = story_css()
    assert "prefers-reduced-motion:reduce" in css
    later_only = {"flash0", "flash1", "flash2", "flash3", "back", "renewed"}
    begins = dict(re.findall(r"@keyframes (\w+)\{0%\{opacity:(\d)\}", css))
    assert begins == {name: "0" if name in later_only else "1" for name in begins} and len(begins) > 20


def test_the_chart_of_planning_is_drawn_from_what_was_measured(tmp_path):
    folder = REPOSITORY / "assets" / "4.inference"
    planned, few, perfect = (
        json.loads((folder / f"planning{name}.json").read_text())["players"] for name in ("", "_few_futures", "_in_emulator")
    )
    save_planning(tmp_path / "planning", few | planned, perfect)
    for file in ("planning_light.svg", "planning_dark.svg"):
        assert (tmp_path / file).read_text(encoding="utf-8") == (folder / file).read_text(encoding="utf-8")
