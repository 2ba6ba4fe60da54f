"""Learning in imagination: what the head learns, who is paid in a dream, and whether a payment had a brick."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from script_runner import call
from structure_checks import REPOSITORY
from tiny_world import save_tiny_world

from dynamics_model.data.frame_cache import encode_store
from uses.imagination.agent import Awake, DreamedVecEnv
from uses.imagination.dreams import DreamedGames, Prompts, Step, judge
from uses.imagination.reward_head import (
    HIDDEN_ROWS,
    HORIZONS,
    RewardHead,
    events,
    head_scores,
    probabilities,
    targets,
    train_head,
    windows,
)
from uses.imagination.train import check_paid, dream, over_seeds
from uses.imagination.wall import EDGE, audit, hits, near
from video_tokenizer.data.clip_store import ClipStoreWriter, open_clip_store
from video_tokenizer.errors import InputError
from video_tokenizer.games.emulator import Game, record_episode
from video_tokenizer.games.policies import make_players
from world_model.scored_games import open_scored_game, play
from world_model.world import WorldModel

BREAKOUT = "ALE/Breakout-v5"
TRAIN = REPOSITORY / "4.inference" / "uses" / "imagination" / "train.py"


def small_head(num_tokens: int = 5, side: int = 4, num_frames: int = 2) -> RewardHead:
    torch.manual_seed(0)
    return RewardHead(torch.eye(num_tokens), (side, side), num_frames, width=16, num_features=64).eval()


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> WorldModel:
    return WorldModel.load(save_tiny_world(tmp_path_factory.mktemp("world")), "cpu", num_steps=1)


# ---- what the head learns -------------------------------------------------------------------------------------------------


def test_an_event_is_a_payment_or_a_lost_life_and_never_the_begin_of_another_game(tmp_path):
    with ClipStoreWriter(tmp_path / "store", (8, 8), {}) as writer:
        frames = np.zeros((3, 8, 8, 3), np.uint8)
        writer.add_episode(frames, rewards=[0, 4, 0], ends=[False] * 3, lives=[5, 5, 4])
        writer.add_episode(frames, rewards=[0, 0, 1], ends=[False, False, True], lives=[1, 1, 1])
    happened = events(open_clip_store(tmp_path / "store"))
    assert happened[:, 0].tolist() == [False, True, False, False, False, True]
    assert happened[:, 1].tolist() == [False, False, True, False, False, True]


def test_a_recording_without_rewards_is_refused(tmp_path):
    with ClipStoreWriter(tmp_path / "old", (8, 8), {}) as writer:
        writer.add_episode(np.zeros((3, 8, 8, 3), np.uint8))
    with pytest.raises(InputError, match="old holds no lives; record the game again"):
        events(open_clip_store(tmp_path / "old"))


def test_a_target_looks_ahead_and_says_nothing_where_the_recording_was_cut():
    """Four frames, paid for the third: within 1 frame, within 2, within 4, and within 8, which nobody can know."""
    happened = np.zeros((4, 2), bool)
    happened[2, 0] = True
    paid = targets(happened, np.array([[0, 4]]))[:, 0]
    nan = np.nan
    wanted = [[0, 0, 1, nan], [0, 1, nan, nan], [1, 1, nan, nan], [0, nan, nan, nan]]
    assert HORIZONS[:4] == (1, 2, 4, 8) and np.array_equal(paid[:, :4], np.array(wanted, np.float32), equal_nan=True)


def test_a_window_never_reaches_into_the_game_before():
    assert windows(np.array([[0, 2], [2, 4]]), 3).tolist() == [[0, 0, 0], [0, 0, 1], [2, 2, 2], [2, 2, 3]]


def test_the_head_sees_everything_but_the_scoreboard():
    head, tokens = small_head(), torch.zeros(1, 2, 16, dtype=torch.int64)
    for place in range(16):
        changed = tokens.clone()
        changed[0, 1, place] = 3
        assert torch.equal(head.features(tokens), head.features(changed)) == (place < 4 * HIDDEN_ROWS)


def test_the_head_learns_which_token_is_paid():
    """Token 1 in the tenth patch is paid, and 2 in the twelfth costs a life."""
    rng, tokens = np.random.default_rng(0), np.zeros((2_000, 16), np.int64)
    tokens[:, [10, 12]] = rng.integers(5, size=(2_000, 2))
    happened = np.stack([tokens[:, 10] == 1, tokens[:, 12] == 2], axis=1)
    episodes = np.array([[0, 1_500], [1_500, 2_000]])
    head = small_head()
    train_head(head, tokens, targets(happened, episodes), episodes[:1], 150, seed=0)
    scores = head_scores(probabilities(head, tokens, episodes)[1_500:], happened[1_500:])
    assert scores["paid"]["auc"] > 0.95 and scores["lost"]["auc"] > 0.95


def test_the_scores_of_a_head_are_those_of_the_book():
    """Of 2 x 2 pairs, three are in order. Above one half lie one frame with an event and one without."""
    given, truth = np.array([0.9, 0.1, 0.8, 0.05]), np.array([True, True, False, False])
    scores = head_scores(np.stack([given, given], axis=1), np.stack([truth, truth], axis=1))["paid"]
    assert (scores["auc"], scores["precision"], scores["recall"], scores["rate"]) == (0.75, 0.5, 0.5, 0.5)


def test_games_without_an_event_have_no_auc():
    given, truth = np.full((4, 2), 0.1), np.array([[False, True]] * 4)
    scores = head_scores(given, truth)
    assert scores["paid"]["auc"] is None and scores["lost"]["auc"] is None and scores["paid"]["rate"] == 0.0


# ---- dreams ---------------------------------------------------------------------------------------------------------------


class Scripted:
    """Two dreamed games with what a head says of each frame; the first game loses its life with the second frame."""

    num_games, keys = 2, (0, 1, 2)
    head = SimpleNamespace(to_logits=SimpleNamespace(in_features=1))
    rng = np.random.default_rng(0)

    def reset(self) -> Step:
        self.time, self.resets = 0, getattr(self, "resets", 0) + 1
        return self.said()

    def step(self, keys: np.ndarray) -> Step:
        self.time += 1
        return self.said()

    def said(self) -> Step:
        lost = np.array([float(self.time == 2), 0.0])
        outlook = np.array([[0.5, 0.0], [0.4, 0.2], [-1.0, 0.2], [0.0, 0.0]])[self.time]
        return Step(np.full((2, 1), self.time, np.float32), np.array([0.0, 0.25 * (self.time == 1)]), lost, outlook)


def test_a_lost_life_ends_an_episode_and_its_rollout_goes_on_until_all_begin_anew():
    games = Scripted()
    env = DreamedVecEnv(games, rollout_steps=3)  # type: ignore[arg-type]
    env.reset()
    steps = [env.step(np.zeros(2, np.int64)) for _ in range(3)]
    assert [step[2].tolist() for step in steps] == [[False, False], [True, False], [True, True]]
    assert [step[0][0, 0] for step in steps] == [1, 2, 0] and games.resets == 2
    infos = steps[2][3]
    assert infos[0]["terminal_observation"] == 3
    assert [step[3][0].get("TimeLimit.truncated") for step in steps] == [None, False, True]


def test_the_agent_is_paid_what_its_new_frame_promises():
    """With the last frame of the rollout it gets that frame's outlook, and observes the first one of the next."""
    env = DreamedVecEnv(Scripted(), rollout_steps=3)  # type: ignore[arg-type]
    env.reset()
    assert [env.step(np.zeros(2, np.int64))[1].tolist() for _ in range(3)] == [[0.4, 0.2], [-1.0, 0.2], [0.0, 0.0]]


def test_the_outlook_is_what_will_be_paid_minus_the_life_that_will_be_lost():
    """Logits of -1 to 1, for both events and all horizons: the outlook takes the longest, and what is paid now the shortest."""
    head = small_head()
    logits = torch.linspace(-1, 1, 2 * len(HORIZONS)).view(1, 2, len(HORIZONS))
    head.logits = lambda features: logits  # type: ignore[method-assign]
    step = judge(head, torch.zeros(1, 2, 16, dtype=torch.int64))
    probability = logits.sigmoid().numpy()[0]
    assert (step.paid[0], step.lost[0]) == (probability[0, 0], probability[1, 0])
    assert step.outlook[0] == pytest.approx(probability[0, -1] - probability[1, -1])


def test_a_key_reaches_the_world_and_the_window_holds_the_newest_tokens(world):
    head = RewardHead(world.tokenizer.indices_to_codes(torch.arange(1000)[None, None])[0, 0], (4, 4), num_frames=3)
    prompts = Prompts(world.start_frames, None, np.arange(2 * 4 * 16).reshape(2, 4, 16))
    games = DreamedGames(world, head, prompts, [5, 2, 0], num_games=3, seed=0)
    games.reset()
    last = games.window[:, -1].clone()
    pressed = []
    world.step_rollouts, step = (lambda state, actions: pressed.append(actions) or step(state, actions)), world.step_rollouts
    games.step(np.array([0, 1, 2]))
    del world.step_rollouts
    assert pressed[0].tolist() == [5, 2, 0] and games.state is not None
    assert torch.equal(games.window[:, -2], last) and torch.equal(games.window[:, -1], games.state.latest)


def test_in_the_emulator_the_agent_observes_what_the_head_was_trained_on(world):
    """Frame by frame with a cache as it plays, or a complete recording at once."""
    head = RewardHead(world.tokenizer.indices_to_codes(torch.arange(1000)[None, None])[0, 0], (4, 4)).eval()
    observed, frames = [], []
    agent = SimpleNamespace(predict=lambda seen, deterministic: observed.append(seen) or (np.array([0]), None))
    real = open_scored_game(world, None, 6)
    ledger = {"frames": 0.0, "believed": 0.0, "paid": 0.0}
    awake = Awake(agent, world, head, real, ledger)  # type: ignore[arg-type]
    play(lambda _: lambda seen, frame: frames.append(frame) or awake(seen, frame), real, 1, 0)
    store = SimpleNamespace(frames=np.stack(frames), episodes=np.array([[0, len(frames)]]))
    tokens = encode_store(store, world.tokenizer, world.device)  # type: ignore[arg-type]
    with torch.no_grad():
        wanted = head.features(torch.from_numpy(tokens.astype(np.int64))[windows(store.episodes, 3)])
    assert ledger["frames"] == 6 and np.allclose(np.concatenate(observed), wanted, atol=1e-5)


# ---- the check ------------------------------------------------------------------------------------------------------------


def test_the_picture_shows_every_brick_that_the_game_pays_for():
    game = Game(BREAKOUT)
    rally = record_episode(game, make_players("scripted", game)["scripted"], 200, seed=3)
    found = hits(rally.frames[:, None])
    paid = rally.arrays["rewards"][:, None] > 0
    assert paid.sum() == 5 and (near(found) & paid).sum() == 5 and not (found & ~near(paid)).any()


def test_pay_is_for_nothing_if_no_brick_went_within_two_frames():
    """Of twelve frames the first and the last three are left out, of which nobody can say it."""
    paid, hit = np.zeros((12, 1)), np.zeros((12, 1), bool)
    hit[5], paid[7], paid[8], paid[2], paid[9] = True, 0.75, 0.25, 5.0, 5.0
    assert EDGE == 3
    assert audit([paid], [hit]) == pytest.approx({"paid": 100 / 6, "hits": 100 / 6, "for_nothing": 0.25})


def test_a_hit_explains_no_payment_of_another_film():
    """Twenty frames are paid for the tenth, with a hit two frames later, and for the sixteenth. As two films of ten, the former
    is too near to an end to say anything."""
    paid, hit = np.zeros((20, 1)), np.zeros((20, 1), bool)
    paid[9], hit[11], paid[15] = 1.0, True, 1.0
    assert audit([paid], [hit])["for_nothing"] == 0.5
    assert audit([paid[:10], paid[10:]], [hit[:10], hit[10:]])["for_nothing"] == 1.0


def test_a_film_of_a_dream_begins_with_the_last_frame_of_its_prompts(world):
    head = RewardHead(world.tokenizer.indices_to_codes(torch.arange(1000)[None, None])[0, 0], (4, 4)).eval()
    games = DreamedGames(world, head, Prompts(world.start_frames, None, np.zeros((2, 4, 16), np.int64)), [0, 1, 2], 3, seed=0)
    reset, begun = games.reset, []
    games.reset = lambda: begun.append(reset()) or begun.append(games.frames) or begun[0]  # type: ignore[method-assign]
    film = dream(games, 2)
    assert film.frames.shape[:2] == (3, 3) and film.paid.shape == (3, 3)
    assert np.array_equal(film.paid[0], begun[0].paid) and np.array_equal(film.frames[0], begun[1])


def test_a_mean_over_seeds_leaves_out_what_is_none():
    """The standard error of the games is none of the seeds, and held-out games without an event have no AUC."""
    results = [{"score": 1.0, "score_standard_error": 0.5, "auc": None}, {"score": 2.0, "score_standard_error": 0.5, "auc": None}]
    assert over_seeds(results) == {"score": 1.5, "lowest_score": 1.0, "auc": None}


def test_the_command_learns_dreams_and_tests(tmp_path, capsys):
    pytest.importorskip("stable_baselines3")
    folder = save_tiny_world(tmp_path / "world")
    flags = ("--num-games", "5", "--game-frames", "64", "--head-steps", "3", "--num-steps", "64", "--num-rollouts", "4",
             "--rollout-steps", "6", "--test-games", "1", "--test-steps", "4", "--seeds", "0", "1")  # fmt: skip
    output = ("--json", str(tmp_path / "numbers.json"), "--picture", str(tmp_path / "paid.png"))
    assert call(TRAIN, "--world", str(folder), *flags, *output) == 0, capsys.readouterr().err
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert len(numbers["by_seed"]) == 2 and set(numbers["baselines"]) == {"chance", "standing_still", "a_rule_by_hand"}
    assert set(numbers["over_seeds"]["audits"]["dream_of_the_agent"]) == {"paid", "hits", "for_nothing"}
    assert (tmp_path / "paid.png").stat().st_size > 0


def test_a_recording_of_another_kind_is_refused(tmp_path):
    names = ["NOOP", "FIRE", "RIGHT", "LEFT"]
    world = WorldModel.load(save_tiny_world(tmp_path / "world", actions="true", linear_light=True), "cpu", num_steps=1)
    good = {"env_id": BREAKOUT, "action_names": names, "linear_light": True}

    def recorded(size: int = 32, **info):
        with ClipStoreWriter(
            tmp_path / "store", (size, size), {k: v for k, v in (good | info).items() if v is not None}, overwrite=True
        ) as writer:
            writer.add_episode(np.zeros((3, size, size, 3), np.uint8))
        return open_clip_store(tmp_path / "store")

    check_paid(recorded(), world)
    for store, reason in (
        (recorded(24), "store has frames of --frame-size 24, not 32 like the world"),
        (recorded(env_id=None), "store was recorded from an unknown game, not ALE/Breakout-v5"),
        (recorded(action_names=names[::-1]), "has the actions LEFT, RIGHT, FIRE, NOOP, but the world was trained with NOOP"),
    ):
        with pytest.raises(InputError, match=reason):
            check_paid(store, world)


def test_the_command_opens_no_recording_of_another_size(tmp_path, capsys):
    pytest.importorskip("stable_baselines3")
    with ClipStoreWriter(tmp_path / "small", (24, 24), {"env_id": BREAKOUT}) as writer:
        writer.add_episode(np.zeros((3, 24, 24, 3), np.uint8), rewards=[0] * 3, ends=[False] * 3, lives=[5] * 3)
    folder = save_tiny_world(tmp_path / "world")
    assert call(TRAIN, "--world", str(folder), "--data-path", str(tmp_path / "small")) == 2
    assert "small has frames of --frame-size 24" in capsys.readouterr().err


def test_more_games_than_lie_before_the_held_out_ones_are_refused(capsys):
    assert call(TRAIN, "--num-games", "1001") == 2
    assert "--num-games 1001 is too large; give at most 1000" in capsys.readouterr().err


def test_another_game_and_no_seed_are_refused(tmp_path, capsys):
    names = ["NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE"]
    pong = save_tiny_world(tmp_path / "pong", env_id="ALE/Pong-v5", action_names=names)
    assert call(TRAIN, "--world", str(pong)) == 2
    assert "the bricks of ALE/Pong-v5 cannot be counted" in capsys.readouterr().err
    assert call(TRAIN, "--seeds") == 2
