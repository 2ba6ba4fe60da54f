"""VIPER: who is paid for what, and by which model. Numbers are small enough to check by hand."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from script_runner import call, load_script
from structure_checks import REPOSITORY
from tiny_tokenizers import stirred
from tiny_viper import some_frames, tiny_world, train_here
from tiny_world import save, save_tiny_world

from dynamics_model.data.metadata import WorldMetadata
from dynamics_model.models.base import Predictions
from uses.viper import films
from uses.viper.expert import never_serves, noisy_expert, play, record_expert, stands_still
from uses.viper.reward import FramesAlone, RunningScale, Stream, VideoReward, alone, pixel_mask
from uses.viper.scores import area_under_curve, as_rows, nearest_frame_similarity, object_patches
from video_tokenizer.config import TokenizerConfig
from video_tokenizer.data.clip_store import open_clip_store
from video_tokenizer.errors import InputError
from video_tokenizer.games.emulator import Game
from video_tokenizer.registry import build_tokenizer

BREAKOUT = "ALE/Breakout-v5"
SCRIPT = REPOSITORY / "4.inference" / "uses" / "viper" / "judge_players.py"
PONG = REPOSITORY / "assets/worlds/pong/tokenizer.pt"


class Copier:
    """A video model of three codes, each of which is copied from the frame before with a probability of 3/4."""

    is_exact_likelihood = True
    context_frames = 3

    def __init__(self):
        self.seen: list[torch.Tensor] = []

    def eval(self) -> "Copier":
        return self

    def requires_grad_(self, needed: bool) -> None:
        assert not needed

    def teacher_forced(self, frames: torch.Tensor, actions: torch.Tensor) -> Predictions:
        assert (actions == -1).all()
        self.seen += [*frames]
        copied = frames[:, 1:] == frames[:, :-1]
        return Predictions(-torch.where(copied, 0.75, 0.25).log(), frames[:, 1:])


def copier(**settings: Any) -> tuple[VideoReward, Copier]:
    """Its reward, without a tokenizer, and the model."""
    model = Copier()
    world = SimpleNamespace(
        dynamics=model, tokenizer=model, action_kind="none", context_frames=3, metadata=WorldMetadata(), frame_size=(8, 8),
        start_frames=np.zeros((1, 2, 8, 8, 3), np.uint8), device="cpu",
    )  # fmt: skip
    return VideoReward(world, **settings), model  # type: ignore[arg-type]


# ---- VI2: the sum of the log-probabilities ------------------------------------------------------------------------------


def test_the_reward_is_the_sum_of_the_log_probabilities_of_the_codes():
    """Two codes are copied and one changes: ln(3/4 * 3/4 * 1/4) = -1.96."""
    reward, _ = copier()
    values = reward.log_likelihoods(torch.tensor([[1, 1, 0], [1, 1, 5]]), [1])
    assert values.dtype == torch.float32
    assert values.sum().item() == pytest.approx(math.log(0.75 * 0.75 * 0.25)) == pytest.approx(-1.96, abs=0.01)


def test_the_conditional_form_pays_for_the_last_frame_and_the_joint_form_for_the_whole_window():
    """The code changes once, from frame 1 to 2. Frame 3 is a copy, but its window still holds the change."""
    tokens = torch.tensor([[1], [1], [5], [5]])
    copy, change = math.log(0.75), math.log(0.25)
    conditional, joint = (copier(is_joint=is_joint)[0].log_likelihoods(tokens, [1, 2, 3]).flatten() for is_joint in (False, True))
    assert conditional.tolist() == pytest.approx([copy, change, copy])
    assert joint.tolist() == pytest.approx([copy, copy + change, change + copy])


def test_the_likelihood_is_that_of_the_model_which_samples():
    """Every factor is the softmax of the model's logits at the code that is there, and nothing else: no dropout, no noise."""
    world = tiny_world(dropout=0.5, context_corruption=1.0)
    reward = VideoReward(world)
    tokens = reward.tokens(some_frames(3))
    with torch.no_grad():
        probabilities = world.dynamics.predict(tokens[None], torch.full((1, 3), -1)).softmax(dim=-1)  # (1, 2, N, K)
    by_hand = probabilities[0, 1].gather(1, tokens[2][:, None]).log().sum().item()
    assert reward.log_likelihoods(tokens, [2]).sum().item() == pytest.approx(by_hand, rel=1e-5)


# ---- VI5: windows, frame skip, mask -------------------------------------------------------------------------------------


def test_a_window_holds_k_past_frames_and_never_reaches_behind_the_start_of_the_episode():
    reward, model = copier(past_frames=2)
    reward.log_likelihoods(torch.arange(5)[:, None], [1, 2, 3, 4])
    assert sorted(window.flatten().tolist() for window in model.seen) == [[0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4]]


def test_the_reward_of_frame_t_plus_1_goes_to_action_t():
    """Frame 3 is replaced: the actions 0 and 1, whose frames came before, are paid as before, and action 2 led to it."""
    reward = VideoReward(tiny_world())
    frames = some_frames()
    other = frames.copy()
    other[3] = 255 - other[3]
    moved = np.abs(reward.rewards(frames) - reward.rewards(other))
    assert len(moved) == 5 and moved[:2].max() == 0 and moved[2] > 0.01


def test_many_frames_are_paid_as_one_by_one():
    reward = VideoReward(tiny_world(), past_frames=1)
    frames = some_frames(70)  # more than are encoded and scored together
    tokens = reward.tokens(frames)
    singly = torch.cat([reward.log_likelihoods(tokens, [number]) for number in range(1, 70)]).double().sum(dim=-1)
    assert reward.rewards(frames) == pytest.approx(singly.numpy(), abs=1e-3)


@pytest.mark.parametrize(("env_id", "rows"), [(BREAKOUT, 5), ("ale_py:ALE/Pong-v5", 7), ("CartPole-v1", 0), (None, 0)])
def test_the_mask_hides_the_scoreboard_of_a_known_game(env_id, rows):
    """16 of the 210 rows of Breakout's screen are 4.9 of 64, so five rows; a row that shows any of it is hidden."""
    mask = pixel_mask(env_id, (64, 64))
    assert mask.shape == (64, 64, 1) and not mask[:rows].any() and mask[rows:].all()


def test_tokenizer_video_model_and_reward_have_the_same_mask(tmp_path):
    """The films are masked before anything is learned from them, and a frame's scoreboard changes neither codes nor reward."""
    game = Game(BREAKOUT, (32, 32))
    mask = pixel_mask(BREAKOUT, (32, 32))
    record_expert(tmp_path / "films", game, mask, 40, 20, seed=0)
    store = open_clip_store(tmp_path / "films")
    films = np.array(store.frames)
    assert (films == films * mask).all() and films.any() and (store.actions == -1).all()
    reward = VideoReward(tiny_world())
    assert (reward.mask == mask).all()
    frames = some_frames()
    edited = frames.copy()
    edited[:, :3] = 99
    assert (mask[:3] == 0).all() and torch.equal(reward.tokens(frames), reward.tokens(edited))
    assert (reward.rewards(frames) == reward.rewards(edited)).all()


@pytest.mark.parametrize("frame_skip", [1, 4])
def test_films_remember_the_frame_skip_with_which_players_are_judged(tmp_path, frame_skip):
    game = Game(BREAKOUT, (32, 32), frame_skip=frame_skip)
    record_expert(tmp_path / "films", game, pixel_mask(BREAKOUT, (32, 32)), 16, 16, seed=0)
    assert open_clip_store(tmp_path / "films").info["frame_skip"] == frame_skip


def test_games_that_are_being_played_are_paid_like_films():
    """Two games frame by frame, then two others, of which the first ones are no past; and each frame without any past."""
    reward = VideoReward(tiny_world())
    stream = Stream(reward)
    for seed in (0, 1):
        films = np.random.default_rng(seed).integers(256, size=(6, 2, 32, 32, 3), dtype=np.uint8)
        stream.start(films[0])
        paid = np.stack([stream.pay(frames) for frames in films[1:]], axis=1)  # (2, 5)
        assert paid == pytest.approx(np.stack([reward.rewards(films[:, game]) for game in (0, 1)]), abs=1e-3)
    each = [reward.rewards(pair) for pair in alone(films[:, 0])]
    assert FramesAlone(reward).pay(films[:, 0]) == pytest.approx(np.concatenate(each), abs=1e-3)


# ---- VI1: frozen, no actions --------------------------------------------------------------------------------------------


def test_the_model_is_frozen_and_in_evaluation_mode():
    world = tiny_world(dropout=0.5)
    world.dynamics.train()
    reward = VideoReward(world)
    parts = [*world.dynamics.parameters(), *world.tokenizer.parameters()]
    assert not any(part.requires_grad for part in parts) and not world.dynamics.training and not world.tokenizer.training
    values = reward.log_likelihoods(reward.tokens(some_frames()), [1, 2])
    assert not values.requires_grad and torch.equal(values, reward.log_likelihoods(reward.tokens(some_frames()), [1, 2]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VideoReward(tiny_world("true")), "trained with true actions"),
        (
            lambda: VideoReward(tiny_world(), past_frames=3),
            "past_frames 3 does not fit this model, which judges a frame by 1 to 2",
        ),
        (lambda: VideoReward(tiny_world(), past_frames=0), "past_frames 0"),
        (lambda: VideoReward(tiny_world(start_value=9)), "frames that show the scoreboard"),
        (lambda: VideoReward(tiny_world(), is_masked=False), "frames without the scoreboard"),
    ],
)
def test_what_cannot_be_a_reward_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_a_model_without_a_likelihood_is_refused(tmp_path):
    with pytest.raises(InputError, match="maskgit has no likelihood"):
        VideoReward.load(save_tiny_world(tmp_path, "none"))


# ---- VI7: normalization -------------------------------------------------------------------------------------------------


def test_rewards_are_normalized_by_what_has_been_paid_so_far():
    """-10 and -30 have the mean -20 and the standard deviation 10, so the second is worth -1, one by one and together."""
    scale, together = RunningScale(), RunningScale()
    assert [scale(np.array([-10.0])).item(), scale(np.array([-30.0])).item(), scale(np.array([-20.0])).item()] == [0.0, -1.0, 0.0]
    assert together(np.array([-10.0, -30.0])).tolist() == [1.0, -1.0]
    assert together(np.array([-20.0, -20.0])).tolist() == scale(np.array([-20.0])).tolist() * 2 == [0.0, 0.0]
    assert together.squares == pytest.approx(scale.squares) == 200


# ---- players and scores -------------------------------------------------------------------------------------------------


def test_the_expert_earns_more_than_random_play_and_who_never_serves_earns_nothing():
    game = Game(BREAKOUT)
    policies = {"expert": noisy_expert(game, 0.0), "random": noisy_expert(game, 1.0), "still": stands_still, "idle": never_serves}
    played = {name: play(game, policy, 201, seed=2) for name, policy in policies.items()}
    assert played["expert"].score > played["random"].score >= played["idle"].score == 0
    still = {name: len(np.unique(played[name].frames[60:100], axis=0)) for name in ("still", "idle")}
    assert still["idle"] == 1 and still["still"] > 10  # one serves again and watches, the other watches nothing


def test_frames_alone_stand_behind_a_black_one():
    pairs = alone(some_frames(3))
    assert pairs.shape == (3, 2, 32, 32, 3) and not pairs[:, 0].any() and (pairs[:, 1] == some_frames(3)).all()


def test_the_area_under_the_curve_counts_pairs():
    """(3, 1), (3, 2), (2, 1) are won and (2, 2) is a tie: 3.5 of 4."""
    assert area_under_curve(np.array([3.0, 2.0]), np.array([1.0, 2.0])) == 3.5 / 4


def test_the_means_of_frames_in_a_row_do_not_overlap():
    """Eight rewards are two means of four, a ninth is left over, and two are one mean."""
    means = load_script(SCRIPT).means_in_a_row
    assert means(np.arange(9.0)).tolist() == [1.5, 5.5] and means(np.array([1.0, 3.0])).tolist() == [2.0]


def test_frames_tell_as_much_as_the_keys_behind_them():
    """Two of Breakout's four keys rest. An expert who only rests would agree with half of the random keys, which leaves an AUC of
    1 - 1/4 = 0.75. One who always moves would agree with a quarter, 1 - 1/8 = 0.875. Ours does both."""
    script = load_script(SCRIPT)
    config = script.JudgeConfig(num_games=2, game_steps=100)
    assert 0.75 < script.auc_of_the_keys(Game(BREAKOUT), config) < 0.875


def test_the_baseline_finds_the_nearest_frame():
    expert = np.zeros((2, 2, 2, 3), np.uint8)
    expert[1] = 255
    frame = np.full((1, 2, 2, 3), 204, np.uint8)
    assert nearest_frame_similarity(as_rows(frame), as_rows(expert)) == pytest.approx([-((51 / 255) ** 2)])


def test_a_list_of_the_films_knows_their_frames_and_no_others():
    """A judged frame is compared under the mask, which hides its left pixel here."""
    film = np.array([[[[0, 0, 0], [7, 7, 7]]]], np.uint8)  # (1, 1, 2, 3)
    game = np.array([[[[9, 9, 9], [7, 7, 7]]], [[[0, 0, 0], [8, 7, 7]]]], np.uint8)
    judge = load_script(SCRIPT).by_memory(film, np.array([[[0], [1]]], np.uint8))
    assert judge(game, [0, 1]).tolist() == [1, 0]


def test_the_patches_of_ball_and_paddle_are_found():
    """Breakout's paddle is in the lowest row of patches and six pixels long; a frame counts the patches of the one before."""
    game = Game(BREAKOUT)
    frames = play(game, noisy_expert(game, 0.0), 40, seed=0).frames
    touched = object_patches(frames, BREAKOUT, (8, 8))
    assert touched[:, 7].any(axis=1).all() and touched[:, 1:7].any()
    assert 1 <= touched[0, 7].sum() <= 2 and touched.mean() < 0.15
    assert not (touched[4] & ~touched[5])[7].all()


# ---- the command --------------------------------------------------------------------------------------------------------

TOY = ("--num-frames", 200, "--episode-frames", 20, "--num-steps", 1, "--batch-size", 2, "--past-frames", 2, "--num-games", 1,
       "--game-steps", 12, "--device", "cpu")  # fmt: skip


def test_the_command_films_trains_judges_and_draws(tmp_path, monkeypatch):
    """All four video models at toy sizes, trained by chapter 3's own script; a second run finds them there."""
    commands = train_here(monkeypatch)
    config = TokenizerConfig(frame_size=64, patch_size=16, embed_dim=32, num_blocks=1, num_heads=2, context_frames=2)
    save("tokenizer", tmp_path, config.model, config, stirred(build_tokenizer(config)), linear_light=True)
    flags = [*TOY, "--tokenizer", tmp_path / "tokenizer.pt", "--output", tmp_path / "viper", "--json", tmp_path / "viper.json",
             "--picture", tmp_path / "surprise.png"]  # fmt: skip
    assert call(SCRIPT, *flags) == 0
    first = json.loads((tmp_path / "viper.json").read_text())
    assert set(first["judges"]) == {"viper", "joint", "frame_alone", "nearest_frame", "in_the_films"}
    assert first["scoreboard"]["masked"]["change"] == 0 != first["scoreboard"]["unmasked"]["change"]
    assert set(first["standing_still"]) == {"viper", "every_emulator_frame"}
    assert (tmp_path / "surprise.png").exists() and len(commands) == 4
    actions = {command[command.index("--actions") + 1] for command in commands}
    masks = [
        VideoReward.load(tmp_path / "viper" / name, is_masked=name != "with_scoreboard").mask for name in load_script(SCRIPT).ARMS
    ]
    assert actions == {"none"} and [mask.all() for mask in masks] == [False, False, True, False]
    assert call(SCRIPT, *flags, "--arms", "viper") == 0 and len(commands) == 4
    again = json.loads((tmp_path / "viper.json").read_text())
    assert again["judges"]["viper"] == first["judges"]["viper"] and "scoreboard" not in again


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--env", "ALE/Boxing-v5"), "--env ALE/Boxing-v5 has no scripted player; choose ALE/Breakout-v5 or ALE/Pong-v5"),
        (("--arms", "viper", "blind"), "--arms blind is not one of viper, frame_alone"),
        (("--arms", "frame_alone"), "--arms without viper"),
        (("--game-steps", 7), "--game-steps 7 is too small; give at least 8"),
        (("--seed", 10_000), "--seed 10000 must lie between 0 and 9,999"),
        (("--tokenizer", PONG), "pong/tokenizer.pt is that of a world of ALE/Pong-v5, not of ALE/Breakout-v5"),
        (("--picture", "x.jpg"), "--picture x.jpg does not end in .png; give x.png"),
    ],
)
def test_the_command_refuses_what_cannot_work(tmp_path, capsys, flags, message):
    assert call(SCRIPT, *flags, "--output", tmp_path / "viper") == 2
    assert message in capsys.readouterr().err and not (tmp_path / "viper").exists()


def test_models_that_were_made_with_other_flags_are_not_used_again(tmp_path, capsys):
    (tmp_path / "viper" / "films").mkdir(parents=True)
    (tmp_path / "viper" / "made_with.json").write_text('{"env": "ALE/Pong-v5"}')
    assert call(SCRIPT, *TOY, "--output", tmp_path) == 2
    assert "was made with env ALE/Pong-v5, not ALE/Breakout-v5; give another --output" in capsys.readouterr().err


def test_a_command_that_made_nothing_does_not_bind_the_corrected_one(tmp_path, capsys):
    """The note of the first is there, and the second gets as far as looking for its own tokenizer."""
    for name in ("wrong.pt", "right.pt"):
        assert call(SCRIPT, *TOY, "--output", tmp_path, "--tokenizer", tmp_path / name) == 2
        assert f"{name} does not exist" in capsys.readouterr().err
    assert name in (tmp_path / "viper" / "made_with.json").read_text()


def test_a_video_model_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    """The disk is full after half of a copy."""

    def half(source: Path, copy: Path) -> None:
        copy.write_bytes(Path(source).read_bytes()[:3])
        raise OSError(28, "No space left on device")

    (tmp_path / "tokenizer.pt").write_bytes(b"weights")
    monkeypatch.setattr(films, "run_training", lambda *_: None)
    monkeypatch.setattr(films.shutil, "copyfile", half)
    with pytest.raises(InputError):
        films.train_video_model(tmp_path / "viper", tmp_path / "tokenizer.pt", 2, 1, 2, 0, "cpu")
    assert not any(path.is_file() for path in (tmp_path / "viper").rglob("*"))
