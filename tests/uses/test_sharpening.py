"""Sharpening: begins as bicubic interpolation, learns what the emulator shows, and says what it cannot do."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from script_runner import call
from server_fixture import PlayerClient, with_player
from structure_checks import REPOSITORY
from tiny_world import save, save_tiny_world, some_frames
from torch import Tensor

from uses.sharpening.config import SharpeningConfig
from uses.sharpening.model import Sharpener, bicubic, load_sharpener
from uses.sharpening.pairs import make_pairs, play_games, redraw
from uses.sharpening.scores import dream_scores, enlargements, picture_scores
from video_tokenizer.data.clips import Clips, to_video
from video_tokenizer.errors import InputError
from video_tokenizer.games.emulator import record_episode
from video_tokenizer.games.policies import random_policy
from video_tokenizer.training.checkpoint import load_checkpoint
from video_tokenizer.training.results import read_json
from video_tokenizer.training.run import Run
from world_model.evaluation.games import play_opening
from world_model.play.world_registry import WorldRegistry, load_use
from world_model.real_game import open_game
from world_model.world import WorldModel

TRAIN, VALIDATE = (REPOSITORY / "4.inference/uses/sharpening" / name for name in ("train.py", "validate.py"))
TINY = ("--width", 8, "--num-blocks", 1, "--crop-size", 16, "--use-dummy-data", "--precision", "float32", "--device", "cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return save_tiny_world(tmp_path_factory.mktemp("worlds") / "breakout")


@pytest.fixture(scope="module")
def world(folder) -> WorldModel:
    return WorldModel.load(folder, "cpu")


def train(folder: Path, run: Path, *flags: object) -> int:
    """A training on the moving square, whose 64x64 pixels are twice those of the tiny world."""
    return call(TRAIN, "--world", folder, "--checkpoint-dir", run, *TINY, *flags)


def weights_of(run: Path) -> dict[str, Tensor]:
    return load_checkpoint(run / "final_model.pt", "sharpener")["weights"]


# ---- the network --------------------------------------------------------------------------------------------------------


def test_a_pixel_shuffle_lays_four_numbers_out_as_two_by_two_pixels():
    """Four channels at two places: 1 2 3 4 become the square 1 2 over 3 4, and beside it stands the square of the next place."""
    channels = torch.tensor([[1, 5], [2, 6], [3, 7], [4, 8]]).reshape(1, 4, 1, 2)
    assert torch.pixel_shuffle(channels, 2).tolist() == [[[[1, 2, 5, 6], [3, 4, 7, 8]]]]


@pytest.mark.parametrize("scale", [2, 4])
def test_an_untrained_network_is_bicubic_interpolation_to_the_last_bit(scale):
    model = Sharpener(SharpeningConfig(scale=scale, width=8, num_blocks=2))
    frames = to_video(some_frames(1, 2))[0]  # (2, 3, 32, 32)
    assert torch.equal(model(frames), bicubic(frames, scale)) and model(frames).shape == (2, 3, 32 * scale, 32 * scale)


def test_the_four_pixels_of_one_come_from_its_own_four_channels():
    """Only the second of the four red channels is on: of each 2x2 square the upper right pixel turns red."""
    model = Sharpener(SharpeningConfig(width=8, num_blocks=0))
    model.to_pixels.bias.data[1] = 0.5
    added = model(torch.zeros(1, 3, 2, 2))[0]
    assert added[0].tolist() == [[0, 0.5, 0, 0.5], [0, 0, 0, 0]] * 2 and added[1:].abs().max() == 0


# ---- the pairs ----------------------------------------------------------------------------------------------------------


def test_the_same_seed_is_the_same_game_at_every_size(world):
    """The small pictures are bit for bit those of a recording at the world's size, and the truth those of one at twice that."""
    pairs = make_pairs(world, play_games(world, 2, 12, first=5), 2)
    for frames, size in ((pairs.small, (32, 32)), (pairs.store.frames, (64, 64))):
        game = open_game("ALE/Breakout-v5", world.metadata, size)
        assert np.array_equal(frames[:12], record_episode(game, random_policy, 12, 5, play_opening).frames)


def test_frames_are_redrawn_as_they_are_in_play(world):
    """In a dream the prompt's last frame is decoded after all before it, one at a time; here many are decoded at once."""
    frames = some_frames(7)
    for count in (1, 4, 7):
        assert np.array_equal(redraw(world, frames)[count - 1], world.reset(frames[:count]))


# ---- the scores ---------------------------------------------------------------------------------------------------------


def test_the_truth_scores_perfectly_and_a_shimmering_picture_flickers(world):
    pairs = make_pairs(world, play_games(world, 2, 12, first=5), 2)
    clips = Clips(pairs.store, [0], 12)
    truth = pairs.store.frames[:12]
    shimmer = (truth // 2 + np.arange(12, dtype=np.uint8)[:, None, None, None] % 2 * 6).astype(np.uint8)
    scores = picture_scores({"truth": lambda _: truth, "shimmer": lambda _: shimmer}, pairs, clips)
    assert scores["truth"]["psnr_db"] == scores["truth"]["moving_psnr_db"] == np.inf
    assert scores["truth"]["flicker"] == 0 and scores["shimmer"]["flicker"] == 6


def test_the_detectors_find_a_dreamed_ball_again_in_larger_pixels():
    """Real pictures of 64 pixels stand in for a dream. Blurred, they keep their ball, but it is darker. A black one has none."""
    world = WorldModel.load(REPOSITORY / "assets/worlds/breakout", "cpu")
    pairs = make_pairs(world, play_games(world, 2, 40, first=7), 2)
    methods = {"bicubic": enlargements(Sharpener(SharpeningConfig()))["bicubic"], "truth": lambda _: pairs.store.frames}
    methods["black"] = lambda _: np.zeros_like(pairs.store.frames)
    scores = dream_scores(methods, pairs.small, pairs.store.frames, "ALE/Breakout-v5", linear_light=True)
    assert scores["bicubic"]["ball_found"] == scores["truth"]["ball_found"] == 1 and scores["black"]["ball_found"] == 0
    assert scores["black"]["ball_light"] == 0 < scores["bicubic"]["ball_light"] < 0.9 < scores["truth"]["ball_light"]
    assert scores["truth"]["one_ball"] == scores["bicubic"]["one_ball"] == 1 and scores["black"]["one_ball"] == 0
    assert scores["truth"]["crumbs"] == scores["real"]["crumbs"] == 0
    distortion = [scores[name]["player_distortion"] for name in ("truth", "bicubic", "black")]
    assert distortion[0] < distortion[1] < distortion[2] == 1


@pytest.mark.parametrize("game", ["breakout", "pong", "freeway"])
def test_the_network_of_a_reference_world_beats_bicubic_by_two_decibels_where_something_moves(game):
    shipped = REPOSITORY / "assets/worlds" / game
    pairs = make_pairs(world := WorldModel.load(shipped, "cpu"), play_games(world, 2, 40, first=3), 2)
    clips = Clips(pairs.store, range(2), 20, stride=19)
    scores = picture_scores(enlargements(load_sharpener(shipped / "sharpener.pt", world)), pairs, clips)
    assert scores["sharpened"]["psnr_db"] > scores["bicubic"]["psnr_db"] + 8
    assert scores["sharpened"]["moving_psnr_db"] > scores["bicubic"]["moving_psnr_db"] + 2
    assert game == "freeway" or scores["sharpened"]["flicker"] < scores["bicubic"]["flicker"]


# ---- the training -------------------------------------------------------------------------------------------------------


def test_a_short_training_beats_bicubic_and_its_checkpoint_draws_the_same_pictures(folder, tmp_path, capsys):
    assert (
        train(folder, tmp_path / "run", "--num-steps", 60, "--validate-every", 60, "--warmup-steps", 10, "--ema-decay", 0.9) == 0
    )
    content = load_checkpoint(tmp_path / "run/best_model.pt", "sharpener")
    assert content["metrics"]["gain_db"] > 0.3, capsys.readouterr().out
    model = load_sharpener(tmp_path / "run/best_model.pt", WorldModel.load(folder, "cpu"))
    again = Sharpener(model.config)
    again.load_state_dict(content["weights"])
    assert np.array_equal(model.sharpen(some_frames(2)), again.sharpen(some_frames(2)))
    assert (tmp_path / "run/samples.png").stat().st_size > 1000


def test_a_training_that_was_stopped_ends_with_the_weights_of_one_that_was_not(folder, tmp_path, monkeypatch):
    flags = ("--num-steps", 6, "--save-every", 3, "--validate-every", 6, "--accumulate", 2)
    assert train(folder, tmp_path / "whole", *flags) == 0
    save_resume = Run._save_resume

    def save_and_stop(self: Run) -> None:
        save_resume(self)
        if self.step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, "_save_resume", save_and_stop)
        assert train(folder, tmp_path / "stopped", *flags) == 130
    assert not (tmp_path / "stopped/final_model.pt").exists()
    assert train(folder, tmp_path / "stopped", *flags) == 0
    whole, stopped = weights_of(tmp_path / "whole"), weights_of(tmp_path / "stopped")
    assert all(torch.equal(whole[name], stopped[name]) for name in whole)


# ---- in play ------------------------------------------------------------------------------------------------------------


def a_sharpener(folder: Path) -> Sharpener:
    """A network with random weights, saved into the folder of a tiny world."""
    torch.manual_seed(1)
    config = SharpeningConfig(width=8, num_blocks=1)
    model = Sharpener(config)
    torch.nn.init.normal_(model.to_pixels.weight, std=0.1)
    save("sharpener", folder, config.model, config, model)
    return load_sharpener(folder / "sharpener.pt", WorldModel.load(folder, "cpu"))


def test_the_network_of_another_world_is_refused_where_it_is_scored_and_where_it_is_played(capsys):
    pong, breakout = (REPOSITORY / "assets/worlds" / game for game in ("pong", "breakout"))
    assert call(VALIDATE, "--world", breakout, "--checkpoint", pong / "sharpener.pt", "--device", "cpu") == 2
    assert "sharpener.pt was trained on another world" in capsys.readouterr().err.splitlines()[-1]
    with pytest.raises(InputError, match="was trained on another world"):
        load_use(pong / "sharpener.pt", WorldModel.load(breakout, "cpu"), "uses.sharpening.model", "load_sharpener")


def test_the_page_gets_every_picture_twice_while_it_is_sharpened(tmp_path):
    worlds = save_tiny_world(tmp_path / "with"), save_tiny_world(tmp_path / "without")
    model = a_sharpener(worlds[0])

    async def test(player: PlayerClient) -> None:
        def split(head: dict, payload: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            assert head["scale"] == 2 and head["mirrored"]
            return payload[: 2 * 32 * 32 * 3].reshape(2, 32, 32, 3), payload[2 * 32 * 32 * 3 :].reshape(2, 64, 64, 3)

        begun = await player.frame("begin", start="game", mirror=True)
        small, large = split(*await player.ask("sharpen", on=True))  # the newest pictures at once, also in a game that is paused
        assert np.array_equal(small, begun) and np.array_equal(large, model.sharpen(small.copy()))
        head, payload = await player.ask("step", key="LEFT")
        small, large = split(head, payload)
        assert np.array_equal(large, model.sharpen(small.copy())) and head["ms"]["sharpen"] > 0
        plain, payload = await player.ask("sharpen", on=False)
        assert plain["scale"] == 1 and np.array_equal(payload.reshape(small.shape), small)
        await player.ask("sharpen", on=True)
        assert not (await player.ask("open", world=worlds[1].as_posix()))[0]["can_sharpen"]
        assert (await player.ask("begin"))[0]["scale"] == 1
        refusal = (await player.ask("sharpen", on=True))[0]
        assert refusal["kind"] == "error" and "this world has no sharpener.pt" in refusal["text"]

    with_player(WorldRegistry(list(worlds), "cpu"), test)


# ---- the scripts --------------------------------------------------------------------------------------------------------


def test_a_network_trained_on_played_games_is_scored_on_others(folder, tmp_path, capsys):
    run = tmp_path / "run"
    played = ("--num-games", 4, "--game-frames", 24, "--num-steps", 2, "--batch-size", 2, *TINY[:6])
    assert call(TRAIN, "--world", folder, "--checkpoint-dir", run, *played) == 0
    assert "data games of ALE/Breakout-v5" in capsys.readouterr().out
    flags = ("--num-games", 2, "--game-frames", 30, "--num-dreams", 1, "--dream-frames", 8)
    json = tmp_path / "scores.json"
    json.write_text('{"pong": {"kept": 1}}')
    output = ("--output", tmp_path, "--json", json)
    assert call(VALIDATE, "--world", folder, "--checkpoint", run / "final_model.pt", *flags, *output) == 0
    printed = capsys.readouterr().out
    assert "sharpened over bicubic" in printed and (tmp_path / "sharpening.png").stat().st_size > 1000
    scores = read_json(json)
    assert scores["pong"] == {"kept": 1} and scores["breakout"]["games"].keys() == {"nearest", "bicubic", "sharpened"}
    assert scores["breakout"]["dreams"].keys() == {"nearest", "bicubic", "sharpened", "real"}


@pytest.mark.parametrize(
    ("script", "flags", "words"),
    [
        (TRAIN, ("--crop-size", 64), "--crop-size 64 is larger than the world's frames of 32 pixels"),
        (TRAIN, ("--use-dummy-data", "--frame-size", 32), "frames of 32 pixels are no larger than the world's own"),
        (TRAIN, ("--num-games", 1), "--num-games 1 is too small"),
        (TRAIN, ("--width", 10**6), "width 1000000 is too large"),
        (TRAIN, ("--seed", 10_000), "--seed 10000 must lie between 0 and 9,999"),
        (VALIDATE, (), "sharpener.pt does not exist"),
        (VALIDATE, ("--dream-frames", 0), "--dream-frames 0 is too small"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(folder, tmp_path, capsys, script, flags, words):
    assert call(script, "--world", folder, *flags, *(("--checkpoint-dir", tmp_path / "run") if script == TRAIN else ())) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and words in said[0] and not (tmp_path / "run").exists()


def test_a_world_of_videos_asks_for_larger_videos(tmp_path, capsys):
    videos = save_tiny_world(tmp_path / "videos", "latent", env_id=None)
    assert call(TRAIN, "--world", videos, "--checkpoint-dir", tmp_path / "run") == 2
    assert "give --data-path with the same videos and a larger --frame-size" in capsys.readouterr().err


def test_a_checkpoint_of_another_size_is_refused(folder, tmp_path, capsys):
    config = SharpeningConfig(width=8, num_blocks=1)
    save("sharpener", tmp_path, "sub-pixel", replace(config, width=16), Sharpener(config))
    assert call(VALIDATE, "--world", folder, "--checkpoint", tmp_path / "sharpener.pt") == 2
    assert "does not fit the model its config describes" in capsys.readouterr().err
