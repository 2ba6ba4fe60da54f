"""Claims about the pictures of the texts: each is drawn from the reference world, and what it shows is computed right."""

import json

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from script_runner import call, load_script
from structure_checks import REPOSITORY

from action_lab.draw import encode_games, play_at_random, pooling_weights
from dynamics_lab.draw import COPIER, RIGHT_KEY, WRONG_KEY, accuracies, draw_cells, predictions, wrong_actions, wrong_key
from dynamics_model.registry import load_dynamics
from latent_action_model.loading import load_latent_action_model
from latent_action_model.models.action_encoder import STILL
from tokenizer_lab.draw import (
    CHANGED,
    LIGHTER,
    NO_BALL,
    REPEATED,
    TOKENS,
    DecodedPatches,
    differing_filters,
    pooled_scores,
    read_world,
    save_psnr_trap,
    scores_of,
    spatial_attention,
    write_tokens,
)
from video_tokenizer.data.clips import to_video
from video_tokenizer.errors import InputError
from video_tokenizer.games.emulator import Game
from world_lab.draw import heat
from world_lab.drift import confidence_by_place, frame_psnr, longest_gap, longest_without, middle_stretch, player_series

WORLD, BREAKOUT = REPOSITORY / "assets" / "worlds" / "breakout", "ALE/Breakout-v5"
PICTURES = {
    "1.video-tokenizer": ("patches", "positions", "attention", "tokens", "psnr_trap"),
    "2.latent-action-model": ("pooling",),
    "3.dynamics-model": ("filling_in", "copy_trap"),
    "4.inference": ("standing_still", "vanished_ball", "confidence"),
}
CHARTS = {
    "1.video-tokenizer": ("causal_mask",),
    "2.latent-action-model": ("latents", "confusion", "collapse"),
    "3.dynamics-model": ("horizons",),
    "4.inference": ("drift", "sampling_steps"),
}


@pytest.fixture(scope="module")
def world():
    """The reference world's tokenizer, its facts, its start frames uint8 (S, T, H, W, 3) and their tokens (S, T, N)."""
    tokenizer, facts = read_world(WORLD)
    starts = facts["start_frames"].numpy()
    with torch.no_grad():
        return tokenizer, facts, starts, tokenizer.encode(to_video(starts)).indices


@pytest.mark.parametrize("chapter", PICTURES)
def test_every_picture_is_drawn_from_the_reference_world(chapter, tmp_path):
    assert call(REPOSITORY / chapter / "lab" / "illustrate.py", "--world", WORLD, "--output", tmp_path) == 0
    for name in PICTURES[chapter]:
        picture = np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB"))
        assert min(picture.shape[:2]) > 150 and 5 < picture.std() < 120
    for name in CHARTS[chapter]:
        light, dark = ((tmp_path / f"{name}_{look}.svg").read_text() for look in ("light", "dark"))
        assert light != dark and "<text" in light and "<image" not in light
    assert chapter != "3.dynamics-model" or (tmp_path / "filling_in.gif").stat().st_size > 50_000


def test_the_attention_shown_is_the_one_that_is_computed(world):
    tokenizer, _, starts, _ = world
    clip, attention = to_video(starts[:1]), tokenizer.encoder.blocks[1].space_attention
    weights = spatial_attention(tokenizer, clip, 1)  # (heads, N, N)
    seen: dict[str, torch.Tensor] = {}
    hook = attention.register_forward_hook(lambda _, given, output: seen.update(x=given[0][-1:], update=output[0][-1]))
    with torch.no_grad():
        tokenizer.encode(clip)
        hook.remove()
        _, _, values = attention.to_qkv(seen["x"])[0].view(64, 3, attention.num_heads, -1).permute(1, 2, 0, 3)  # (heads, N, d)
        assert torch.allclose(attention.output((weights @ values).transpose(0, 1).flatten(1)), seen["update"], atol=1e-4)


def test_the_pooling_weights_shown_are_those_of_the_encoder(world):
    encoder, video = load_latent_action_model(WORLD / "latent_action_model.pt").encoder, to_video(world[2])[:, 3:6]
    seen: dict[str, torch.Tensor] = {}
    encoder.to_channels.register_forward_hook(lambda _, given, output: seen.update(cells=output))
    encoder.to_latent.register_forward_hook(lambda _, given, output: seen.update(pooled=given[0]))
    with torch.no_grad():
        encoder(video)
    before, after = video[:, :-1].flatten(0, 1), video[:, 1:].flatten(0, 1)
    weights = pooling_weights(before, after).flatten(1)  # (M, N)
    change = (after - before).abs().mean(dim=(1, 2, 3)) * weights.shape[1]
    assert torch.allclose(weights.sum(dim=1), change / (change + STILL))
    cells = torch.nn.functional.gelu(seen["cells"]).flatten(2)  # (M, channels, N)
    assert torch.allclose((cells @ weights[..., None])[..., 0], seen["pooled"], atol=1e-5)


def test_every_latent_shown_is_nearest_to_its_code_and_beside_its_action():
    model = load_latent_action_model(WORLD / "latent_action_model.pt")
    games = play_at_random(Game(BREAKOUT), 100)
    played = encode_games(model, games)
    codes = model.quantizer.indices_to_codes(torch.arange(8)).detach()
    assert torch.equal(torch.cdist(played.latents, codes).argmin(dim=1), played.indices)
    assert played.actions[:3].tolist() == games[0][1][1:4].tolist()  # no action led to the first frame


def test_a_world_without_a_game_gets_no_picture_of_latents(tmp_path, capsys):
    illustrate = load_script(REPOSITORY / "2.latent-action-model" / "lab" / "illustrate.py")
    model = load_latent_action_model(WORLD / "latent_action_model.pt")
    for facts in ({}, {"env_id": "ALE/NoSuchGame-v5"}):
        assert not illustrate.draw_latents(tmp_path / "latents", model, facts, 100)
        assert capsys.readouterr().out.startswith("latents is left out: ")


def test_scores_of_another_world_are_not_drawn_as_those_of_this_one(tmp_path, capsys):
    scores = tmp_path / "metrics.json"
    for content, reason in (
        ({}, "holds no counts; validate.py --json writes it"),
        ({"counts": [[1]]}, "was measured on None and not on a model in"),
        ({"counts": [[1]], "checkpoint": "assets/worlds/pong/dynamics.pt"}, "was measured on assets/worlds/pong/dynamics.pt"),
    ):
        scores.write_text(json.dumps(content))
        assert scores_of(str(WORLD), scores, ("counts",), "confusion") == {}
        assert reason in capsys.readouterr().out
    scores.write_text(json.dumps(content | {"checkpoint": "assets/worlds/breakout/latent_action_model.pt"}))
    assert scores_of(str(WORLD), scores, ("counts",), "confusion")["counts"] == [[1]]


def test_filters_that_are_shown_differ():
    a, b = torch.randn(2, 6, 6, generator=torch.Generator().manual_seed(0))
    responses = torch.stack([3 * a, -2 * a, 2 * b, 0.1 * torch.eye(6), torch.zeros(6, 6), torch.zeros(6, 6)])
    assert differing_filters(responses, 2) == [0, 2]  # 1 is 0 upside down, and 3 to 5 hardly react


def test_psnr_prefers_no_ball_to_a_touch_of_light_and_moving_psnr_does_not(world, tmp_path):
    tokenizer, _, starts, _ = world
    scores, count = pooled_scores(tokenizer, starts, BREAKOUT)
    psnr, moving = ({label: scores[label][name] for label in scores} for name in ("psnr_db", "moving_psnr_db"))
    assert count == 51 and psnr[LIGHTER] == pytest.approx(20 * np.log10(255 / 4), abs=0.1)
    assert psnr[TOKENS] > psnr[NO_BALL] > psnr[LIGHTER] > psnr[REPEATED]
    assert moving[TOKENS] > moving[LIGHTER] > moving[NO_BALL] > moving[REPEATED]
    with pytest.raises(InputError, match="--clip 0: no frame"):
        save_psnr_trap(tmp_path / "psnr_trap.png", tokenizer, np.zeros_like(starts[:1]), 0, BREAKOUT)


def test_exactly_the_changed_tokens_are_highlighted(world):
    changed = np.isin(np.arange(64), (3, 17, 63))
    picture = write_tokens(world[2][0, 0], np.arange(64), changed)
    color = [int(CHANGED[start : start + 2], 16) for start in (1, 3, 5)]
    cells = picture.reshape(8, 48, 8, 48, 3).transpose(0, 2, 1, 3, 4).reshape(64, 48, 48, 3)
    assert (cells[:, 10:30, 47] == color).all(axis=(1, 2)).tolist() == changed.tolist()


def test_a_token_is_shown_as_the_mean_of_its_patches():
    """Token 5 stands at place 0 in both frames, once black and once at 100 of 255: the mean is 50. At place 1 it is white."""
    decoded = torch.zeros(1, 2, 3, 2, 4)
    decoded[0, 1, :, :, :2], decoded[0, 0, :, :, 2:] = 100 / 255, 1.0
    patches = DecodedPatches(torch.tensor([[[5, 5], [5, 9]]]), decoded, patch_size=2)
    assert patches.most_used(2) == [(5, 0.75), (9, 0.25)] and patches.usual_place(5) == 0
    assert (patches.mean_patch(5, 0) == 50).all() and patches.least_alike(5, 0) == (205.0, 1)


def test_the_copier_is_nearly_always_right_and_never_on_what_changes(world):
    _, facts, _, tokens = world
    wrong = wrong_actions(facts["start_actions"], facts["latent_names"], facts["action_map"], ["LEFT", "RIGHT"])
    predicted = predictions(load_dynamics(WORLD / "dynamics.pt"), tokens, facts["start_actions"], wrong)
    shares = {label: accuracies(guess, tokens[:, 1:], tokens[:, :-1]) for label, guess in predicted.items()}
    assert shares[COPIER][0] > 0.95 and shares[COPIER][1] == 0
    assert shares[RIGHT_KEY][0] > shares[COPIER][0] > shares[WRONG_KEY][0]  # accuracy prefers the one that knows nothing
    assert shares[RIGHT_KEY][1] > 0.9 > shares[WRONG_KEY][1]


def test_a_wrong_key_means_something_else():
    names, sent = ["RIGHT", "rest", "LEFT", "NOOP or LEFT"], {"NOOP": 1, "LEFT": 2, "RIGHT": 0}
    assert [wrong_key(action, names, sent, ("LEFT", "RIGHT")) for action in range(4)] == ["LEFT", "LEFT", "RIGHT", "RIGHT"]
    assert wrong_actions(torch.tensor([[-1, 0, 3]]), names, sent, ("LEFT", "RIGHT")).tolist() == [[-1, 2, 0]]
    with pytest.raises(InputError, match="every key of this world means all"):
        wrong_key(0, ["all"], {"NOOP": 0}, ["NOOP"])


def test_cells_are_crossed_where_the_prediction_is_wrong():
    """Of four tokens the second and third change; the guess knows the second, and takes the fourth for another."""
    axes = Figure().subplots()
    before, now, guess = torch.tensor([1, 2, 3, 4]), torch.tensor([1, 5, 6, 4]), torch.tensor([1, 5, 3, 7])
    assert draw_cells(axes, before, now, guess, columns=2) == "1 of 2 changes"
    assert np.asarray(axes.collections[0].get_offsets()).tolist() == [[0.0, 1.0], [1.0, 1.0]]


# ---- chapter 4's measurements -----------------------------------------------------------------------------------------

RED = (200, 72, 72)


def breakout(paddles: list[int], ball: tuple[int, int] | None = None) -> np.ndarray:
    """Frames (T, 64, 64, 3) uint8, black but for a paddle around each place and a ball of 2x2 pixels at (row, column)."""
    video = np.zeros((len(paddles), 64, 64, 3), np.uint8)
    for frame, place in zip(video, paddles, strict=True):
        frame[57:59, place - 3 : place + 4] = RED
        if ball is not None:
            frame[ball[0] : ball[0] + 2, ball[1] : ball[1] + 2] = RED
    return video


def test_a_small_measurement_writes_the_keys_of_the_published_one(tmp_path, capsys):
    def keys(value):
        return {name: keys(entry) for name, entry in value.items()} if isinstance(value, dict) else None

    script = REPOSITORY / "4.inference" / "lab" / "illustrate.py"
    files = ("--drift", tmp_path / "drift.json", "--output", tmp_path)
    assert call(script, *files) == 2 and "illustrate.py --measure" in capsys.readouterr().err
    few = ("--num-dreams", 2, "--num-frames", 8, "--num-long-dreams", 1, "--long-frames", 20, "--num-episodes", 1)
    assert call(script, "--measure", *few, "--game-frames", 120, *files) == 0
    fresh, ours = (json.loads((folder / "drift.json").read_text()) for folder in (tmp_path, REPOSITORY / "assets/4.inference"))
    assert keys(fresh) == keys(ours) and len(fresh["player"]["dream"]["error_px"]) == 8


def test_the_psnr_of_a_paddle_in_the_wrong_place_is_flattering():
    """It is 18 pixels off, so 28 of 4,096 pixels are wrong by (200, 72, 72) of 255: a mean squared error of 0.0018, 27.5 dB."""
    assert frame_psnr(breakout([20]), breakout([38])) == pytest.approx(27.5, abs=0.1)
    assert player_series(breakout([20])[None], breakout([38])[None], BREAKOUT)["error_px"] == pytest.approx([18], abs=0.5)


def test_the_stretch_that_is_shown_is_the_middle_one_and_not_the_best():
    real = np.stack([breakout([20] * 4)] * 3)
    dream = np.stack([breakout([20] * 4), breakout([50] * 4), breakout([26] * 4)])  # 0, 30 and 6 pixels off
    chosen = middle_stretch({"real": real, "dream": dream, "still": real}, BREAKOUT)
    assert chosen["stretch"] == 2 and chosen["dream"]["error_px"] == pytest.approx([6] * 4, abs=0.5)


def test_the_rollout_that_is_shown_is_the_one_without_a_ball_for_longest():
    there, gone = breakout([20] * 6, ball=(40, 30)), breakout([20] * 6)
    videos = {"real": np.stack([there] * 2), "dream": np.stack([there] * 2)}
    chosen = longest_without(videos | {"cold": np.stack([there, np.concatenate([there[:2], gone[2:]])])}, BREAKOUT)
    assert (chosen["stretch"], chosen["gone_for"], chosen["frames"]) == (1, 4, [2, 3, 4, 5, 6])  # frame 2 is the last with it
    assert longest_gap(np.array([True, True, False, False, False, True, False])) == (2, 3)


def test_confidence_is_separated_by_what_a_patch_shows():
    """8x8 patches of 8 pixels: the ball at row 41, column 28 is in patch (5, 3), the paddle from 17 to 23 in patch (7, 2)."""
    probability = np.full((1, 1, 8, 8), 0.9)
    probability[..., 5, 3], probability[..., 7, 2] = 0.3, 0.6
    found = confidence_by_place(probability.reshape(1, 1, 64), breakout([20], ball=(41, 28))[None], (8, 8), BREAKOUT)
    assert found["by_place"] == pytest.approx({"ball": 0.3, "player": 0.6, "neither": 0.9})
    assert found["mean"][5][3] == 0.3 and found["share_doubtful"] == pytest.approx(2 / 64)


def test_a_heat_map_is_yellow_at_1_and_dark_up_to_a_half():
    picture = heat(np.array([[1.0, 0.5], [0.2, 0.75]]), 3)
    assert picture[0, 0].tolist() == [253, 231, 36] and picture[0, 3].tolist() == picture[3, 0].tolist() == [68, 1, 84]
