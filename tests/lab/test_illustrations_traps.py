"""What the pictures of the two traps and of the tokens claim is so, and they are what the shipped world makes."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from structure_checks import REPOSITORY

from dynamics_lab.draw_copy_baseline import (
    COPIER,
    RIGHT_KEY,
    WRONG_KEY,
    accuracies,
    draw_cells,
    guesses,
    save_copy_trap,
    wrong_actions,
    wrong_key,
)
from dynamics_model.metrics import DynamicsMetrics
from dynamics_model.registry import load_dynamics
from tokenizer_lab.draw_psnr_failure import (
    LIGHTER,
    NO_BALL,
    ORIGINAL,
    REPEATED,
    TOKENS,
    five_ways,
    frames_with_ball,
    pooled_scores,
    save_psnr_trap,
    score,
)
from tokenizer_lab.draw_tokens import CHANGED, Dictionary, liveliest_step, save_tokens, write_tokens
from tokenizer_lab.illustrations import read_beginnings
from video_tokenizer.data.clips import to_frames, to_video
from video_tokenizer.games.detectors import detect_ball
from video_tokenizer.training.command_line import InputError

WORLD = REPOSITORY / "assets" / "worlds" / "breakout"
BREAKOUT = "ALE/Breakout-v5"
MOVING_KEYS = ("LEFT", "RIGHT")


@pytest.fixture(scope="module")
def world():
    """The shipped world's tokenizer, its facts, the frames of its beginnings uint8 (S, T, H, W, 3) and their tokens (S, T, N)."""
    tokenizer, facts = read_beginnings(WORLD, 0)
    starts = facts["start_frames"].numpy()
    with torch.no_grad():
        return tokenizer, facts, starts, tokenizer.encode(to_video(starts)).indices


@pytest.fixture(scope="module")
def said(world):
    _, facts, _, tokens = world
    wrong = wrong_actions(facts["start_actions"], facts["latent_names"], facts["action_map"], MOVING_KEYS)
    return guesses(load_dynamics(WORLD / "dynamics.pt"), tokens, facts["start_actions"], wrong)


def same_picture(ours, again) -> bool:
    """Other versions of matplotlib place letters otherwise, other processors draw other tokens; what is shown stays."""
    ours, again = Image.open(ours).convert("RGB"), Image.open(again).convert("RGB")
    if abs(ours.width - again.width) >= 20 or abs(ours.height - again.height) >= 20:
        return False
    again = again.resize(ours.size)
    small = [np.asarray(picture.resize((60, 40), Image.Resampling.BOX), np.float32) for picture in (ours, again)]
    return bool(np.abs(small[0] - small[1]).mean() < 4)


def test_the_trap_of_psnr_is_drawn_from_the_shipped_world(world, tmp_path):
    tokenizer, _, starts, _ = world
    save_psnr_trap(tmp_path / "psnr_trap.png", tokenizer, starts, 3, BREAKOUT)
    assert same_picture(REPOSITORY / "assets" / "1.video-tokenizer" / "psnr_trap.png", tmp_path / "psnr_trap.png")


def test_the_tokens_are_drawn_from_the_shipped_world(world, tmp_path):
    tokenizer, _, starts, _ = world
    save_tokens(tmp_path / "tokens.png", tokenizer, starts, 0)
    assert same_picture(REPOSITORY / "assets" / "1.video-tokenizer" / "tokens.png", tmp_path / "tokens.png")


def test_the_trap_of_copying_is_drawn_from_the_shipped_world(world, said, tmp_path):
    tokenizer, _, starts, tokens = world
    save_copy_trap(tmp_path / "copy_trap.png", tokenizer, starts, tokens, said, 5, ("RIGHT", "LEFT"))
    assert same_picture(REPOSITORY / "assets" / "3.dynamics-model" / "copy_trap.png", tmp_path / "copy_trap.png")


def test_the_frame_without_a_ball_has_the_best_psnr_and_no_ball(world):
    """In the frame shown: 47.8 dB without the ball, 36.1 dB where all is there and 4 of 255 brighter."""
    tokenizer, _, starts, _ = world
    ball = detect_ball(starts[3], BREAKOUT)
    assert frames_with_ball(ball).tolist() == [1, 2, 3, 4, 5, 6, 7]
    ways = five_ways(tokenizer, starts[3], ball)
    scores = {label: score(drawn, ways[ORIGINAL], np.array([4])).result() for label, drawn in ways.items()}
    psnr = {label: numbers["psnr_db"] for label, numbers in scores.items() if label != ORIGINAL}
    assert max(psnr, key=lambda label: psnr[label]) == NO_BALL and psnr[NO_BALL] == pytest.approx(47.8, abs=0.1)
    assert psnr[LIGHTER] == pytest.approx(20 * np.log10(255 / 4), abs=0.01)
    moving = {label: numbers["moving_psnr_db"] for label, numbers in scores.items()}
    assert min(moving[TOKENS], moving[LIGHTER]) > max(moving[NO_BALL], moving[REPEATED]) + 10
    places = {label: detect_ball(to_frames(drawn)[0, 4:5], BREAKOUT)[0] for label, drawn in ways.items()}
    assert np.isnan(places[NO_BALL]).all()
    assert all(np.linalg.norm(places[label] - ball[4]) < 1 for label in (ORIGINAL, TOKENS, LIGHTER))
    assert np.linalg.norm(places[REPEATED] - ball[4]) > 2


def test_over_all_frames_psnr_prefers_no_ball_and_moving_psnr_the_tokens(world):
    tokenizer, _, starts, _ = world
    scores, count = pooled_scores(tokenizer, starts, BREAKOUT)
    assert count == 48
    psnr, moving = ({label: scores[label][name] for label in scores} for name in ("psnr_db", "moving_psnr_db"))
    assert psnr[NO_BALL] == pytest.approx(45.7, abs=0.1) and moving[NO_BALL] == pytest.approx(21.0, abs=0.1)
    assert psnr[NO_BALL] > psnr[TOKENS] > psnr[REPEATED] > psnr[LIGHTER]
    assert moving[TOKENS] > moving[LIGHTER] > moving[NO_BALL] > moving[REPEATED]


def test_a_beginning_without_a_ball_is_refused(world, tmp_path):
    tokenizer, _, starts, _ = world
    with pytest.raises(InputError, match="--clip 0: no frame"):
        save_psnr_trap(tmp_path / "psnr_trap.png", tokenizer, np.zeros_like(starts[:1]), 0, BREAKOUT)


def test_the_highlighted_cells_are_exactly_the_tokens_that_differ(world):
    _, _, starts, tokens = world
    step = liveliest_step(tokens[0])
    changed = (tokens[0, step] != tokens[0, step - 1]).numpy()
    assert changed.sum() == 4
    picture = write_tokens(starts[0, step], tokens[0, step].numpy(), changed)
    edge = np.array([int(CHANGED[start : start + 2], 16) for start in (1, 3, 5)])
    cells = picture.reshape(8, 48, 8, 48, 3).transpose(0, 2, 1, 3, 4).reshape(64, 48, 48, 3)
    # the right edge of a cell, where no other cell's frame and no number reaches
    framed = (cells[:, 10:30, 47] == edge).all(axis=(1, 2))
    assert framed.tolist() == changed.tolist()


def test_a_word_is_the_mean_of_what_is_drawn_where_it_stands(world):
    """Token 5 stands at place 0 in both frames, once black and once at 100 of 255: the mean is 50; at place 1 it is another."""
    drawn = torch.zeros(1, 2, 3, 2, 4)
    drawn[0, 1, :, :, :2] = 100 / 255
    drawn[0, 0, :, :, 2:] = 1.0
    book = Dictionary(torch.tensor([[[5, 5], [5, 9]]]), drawn, patch_size=2)
    assert book.most_used == [5, 9] and book.shares == {5: 0.75, 9: 0.25}
    word = book.word(5)
    assert word.place == 0 and (word.picture == 50).all() and word.share == 0.75
    distance, _, other = book.elsewhere(word)
    assert other.place == 1 and distance == 205.0
    tokenizer, _, _, tokens = world
    with torch.no_grad():
        book = Dictionary(tokens, tokenizer.decode_indices(tokens), tokenizer.config.patch_size)
    assert sum(book.word(token).share for token in book.most_used[:16]) == pytest.approx(0.94, abs=0.01)
    assert [book.word(199, place).picture[3, 3].max() > 150 for place in (20, 5)] == [True, False]  # bricks, and a digit


def test_the_copier_is_nearly_always_right_and_never_on_what_changes(world, said):
    _, _, _, tokens = world
    shares = {label: accuracies(guess, tokens[:, 1:], tokens[:, :-1]) for label, guess in said.items()}
    assert shares[COPIER] == (pytest.approx(0.961, abs=0.002), 0.0)
    assert shares[RIGHT_KEY] == (pytest.approx(0.991, abs=0.003), pytest.approx(0.93, abs=0.03))
    assert shares[WRONG_KEY] == (pytest.approx(0.952, abs=0.005), pytest.approx(0.55, abs=0.05))
    assert shares[WRONG_KEY][0] < shares[COPIER][0]  # plain accuracy prefers the one that knows nothing


def test_what_the_model_says_under_the_right_key_is_what_chapter_3_measures(world, said):
    _, facts, _, tokens = world
    metrics = DynamicsMetrics()
    model = load_dynamics(WORLD / "dynamics.pt")
    metrics.update(model, tokens, facts["start_actions"], torch.Generator().manual_seed(0))
    measured = metrics.result()
    shown = accuracies(said[RIGHT_KEY], tokens[:, 1:], tokens[:, :-1])
    assert shown == (pytest.approx(measured["accuracy"], abs=1e-3), pytest.approx(measured["accuracy_changed"], abs=1e-2))


def test_a_wrong_key_means_something_else():
    names, sent = ["RIGHT", "rest", "LEFT", "NOOP or LEFT"], {"NOOP": 1, "LEFT": 2, "RIGHT": 0}
    assert [wrong_key(action, names, sent, ("LEFT", "RIGHT")) for action in range(4)] == ["LEFT", "LEFT", "RIGHT", "RIGHT"]
    assert wrong_actions(torch.tensor([[-1, 0, 3]]), names, sent, ("LEFT", "RIGHT")).tolist() == [[-1, 2, 0]]
    with pytest.raises(InputError, match="no key of this world"):
        wrong_key(0, ["all"], {"NOOP": 0}, ["NOOP"])


def test_cells_are_crossed_where_something_else_was_said():
    """Of four tokens the second and third change; the guess knows the second, and takes the fourth for another."""
    axes = Figure().subplots()
    before, now, guess = torch.tensor([1, 2, 3, 4]), torch.tensor([1, 5, 6, 4]), torch.tensor([1, 5, 3, 7])
    assert draw_cells(axes, before, now, guess, columns=2) == "1 of 2 changes"
    crosses = axes.collections[0].get_offsets()
    assert np.asarray(crosses).tolist() == [[0.0, 1.0], [1.0, 1.0]]
