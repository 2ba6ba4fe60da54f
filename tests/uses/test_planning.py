"""Planning: the search in a world whose best key is known, batches of futures, costs, and an agent that plays by them."""

import json

import numpy as np
import pytest
from PIL import Image
from script_runner import call
from structure_checks import REPOSITORY
from tiny_world import save_tiny_world, some_frames

from uses.planning.costs import meet_the_ball, positions, stay_under_the_ball
from uses.planning.futures import overlaid
from uses.planning.planner import Planner, Search, copies, imagine_in_emulator, imagine_in_world, search
from video_tokenizer.errors import InputError
from video_tokenizer.games.emulator import Game
from world_model.world import WorldModel

BREAKOUT = "ALE/Breakout-v5"
PLAN = REPOSITORY / "4.inference" / "plan.py"
STEPS = np.array([0, -1, 1])
"""what the keys stay, smaller and larger do to the place of the toy world"""


def toy_world(plans: np.ndarray) -> np.ndarray:
    """A place that the keys move, starting at 0: "frames" (N, H) that hold nothing but the place."""
    return STEPS[plans].cumsum(axis=1)


def ends_at_five(places: np.ndarray) -> np.ndarray:
    return np.abs(places[:, -1] - 5)


def breakout(paddle: float, ball: tuple[int, int] | None) -> np.ndarray:
    """A picture with a paddle around one column, and a ball of 2x2 pixels that begins in a row and a column."""
    frame = np.zeros((64, 64, 3), np.uint8)
    frame[58, round(paddle - 3) : round(paddle + 4)] = (200, 72, 72)
    if ball is not None:
        frame[ball[0] : ball[0] + 2, ball[1] : ball[1] + 2] = (200, 72, 72)
    return frame


# ---- the search ---------------------------------------------------------------------------------------------------------


def test_with_all_plans_at_hand_random_shooting_finds_the_best_key():
    found = search(toy_world, ends_at_five, 3, Search(num_rollouts=64, horizon=2, hold=1), np.random.default_rng(0))
    assert found.plan.tolist() == [2, 2] and found.costs.min() == 3  # two steps to the right leave three
    assert found.plans.shape == (64, 2) and found.futures.shape == (64, 2) and len({*map(tuple, found.plans)}) == 9


def test_a_key_is_held_and_the_last_one_is_cut_at_the_horizon():
    found = search(toy_world, ends_at_five, 3, Search(num_rollouts=20, horizon=5, hold=2), np.random.default_rng(0))
    assert (found.plans[:, 0] == found.plans[:, 1]).all() and (found.plans[:, 2] == found.plans[:, 3]).all()
    assert found.plans.shape == (20, 5) and found.probability.shape == (3, 3)


def test_the_next_round_draws_what_the_elites_pressed():
    """One stretch, 8 plans, the best quarter of them are 2 elites, both "larger": its probability is 0.2 / 3 + 0.8."""
    settings = Search(num_rollouts=8, horizon=1, hold=1)
    drawn = search(toy_world, ends_at_five, 3, settings, np.random.default_rng(0))
    assert (drawn.plans == 2).sum() >= 2
    assert np.allclose(drawn.probability, [[0.2 / 3, 0.2 / 3, 0.2 / 3 + 0.8]])


def test_with_the_same_number_of_rollouts_rounds_get_further_than_one():
    """Of 3^8 plans only one ends at 8 at best; 64 random ones rarely come near."""

    def cost(places: np.ndarray) -> np.ndarray:
        return 8.0 - places[:, -1]

    costs = {
        rounds: np.mean(
            [search(toy_world, cost, 3, Search(64, 8, 1, rounds), np.random.default_rng(s)).costs.min() for s in range(20)]
        )
        for rounds in (1, 4)
    }
    assert costs[4] < costs[1] - 1


def test_the_same_seed_finds_the_same_plan_and_one_rollout_chooses_nothing():
    settings = Search(num_rollouts=1, horizon=6, hold=1)
    plans = [search(toy_world, ends_at_five, 3, settings, np.random.default_rng(seed)).plan.tolist() for seed in (1, 1, 2)]
    assert plans[0] == plans[1] != plans[2]


def test_a_future_of_which_nothing_can_be_said_is_not_chosen():
    def cost(places: np.ndarray) -> np.ndarray:
        return np.where(places[:, -1] == 1, np.nan, -places[:, -1])

    found = search(toy_world, cost, 3, Search(num_rollouts=32, horizon=1, hold=1), np.random.default_rng(0))
    assert found.plan.tolist() == [0] and np.isinf(found.costs).any()


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"num_rollouts": 3, "num_rounds": 4}, "3 rollouts"), ({"horizon": 0}, "--horizon 0"), ({"hold": 0}, "--hold 0")],
)
def test_impossible_searches_are_refused(settings, words):
    with pytest.raises(InputError, match=words):
        Search(**settings)


# ---- who imagines -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> WorldModel:
    return WorldModel.load(save_tiny_world(tmp_path_factory.mktemp("world")), device="cpu", temperature=0.0)


def test_a_batch_of_futures_is_what_single_rollouts_are(world):
    actions, plans = np.array([0, 5, 2]), np.array([[0, 1, 2], [2, 2, 2], [1, 0, 0]])
    frames = some_frames(1, 4)
    together = imagine_in_world(world, world.start_rollouts(frames), actions)(plans)
    for plan, future in zip(plans, together, strict=True):
        assert np.array_equal(world.rollout(frames, None, actions[plan][None])[0], future)


def test_futures_leave_the_belief_that_they_start_from_untouched(world):
    belief, actions = world.start_rollouts(some_frames(1, 4)), np.array([0, 5, 2])
    imagine = imagine_in_world(world, belief, actions)
    first = imagine(np.array([[1, 1]]))
    imagine(np.array([[2, 0], [0, 2]]))
    assert np.array_equal(first, imagine(np.array([[1, 1]])))
    assert copies(belief, 3).latest.shape[0] == 3 and belief.latest.shape[0] == 1


def test_the_emulator_imagines_what_it_then_plays_and_is_rewound():
    game, actions, plans = Game(BREAKOUT), np.array([1, 3, 2]), np.array([[0, 1, 2], [2, 2, 2], [0, 1, 2]])
    game.reset(0)
    game.step(1)
    score, needs_fire, screen = game.score, game.needs_fire, game.screen()
    futures = imagine_in_emulator(game, actions)(plans)
    assert (game.score, game.needs_fire) == (score, needs_fire) and np.array_equal(game.screen(), screen)
    assert np.array_equal(futures[0], futures[2]) and not np.array_equal(futures[0], futures[1])
    for plan, future in zip(plans[:2], futures[:2], strict=True):
        with game.rewound():
            for key, frame in zip(plan, future, strict=True):
                game.step(actions[key])
                assert np.array_equal(game.peek(actions[key]), frame)


# ---- costs --------------------------------------------------------------------------------------------------------------


def test_a_cost_is_the_distance_in_shares_of_the_frame():
    """Paddle at 30, ball at 50.5 in row 40.5: 20.5 / 64 = 0.32; in the second future they meet, in the third there is no ball."""
    futures = np.stack([breakout(30, (40, 50)), breakout(50.5, (40, 50)), breakout(30, None)])[:, None]
    player, along, near = positions(futures, BREAKOUT)
    assert np.allclose(player[:, 0] * 64, [30, 50.5, 30], atol=1) and np.allclose(near[:2, 0], 40.5 / 64, atol=0.01)
    assert np.allclose(along[:2, 0] * 64, 50.5, atol=0.5) and np.isnan(along[2, 0])
    for cost in (meet_the_ball, stay_under_the_ball):
        assert np.allclose(cost(futures[:2], BREAKOUT), [20.5 / 64, 0], atol=0.02)
        assert np.isnan(cost(futures[2:], BREAKOUT))


def test_a_future_cannot_pay_by_a_ball_of_its_own():
    """The keys do not move the ball. Where two futures see it far from the paddle, a third that melts it or sees it in another
    place is as far away as they are."""
    seen, melted, moved = breakout(30, (40, 50)), breakout(30, None), breakout(30, (40, 30))
    for odd in (melted, moved):
        futures = np.stack([seen, seen, odd])[:, None]
        for cost in (meet_the_ball, stay_under_the_ball):
            assert np.allclose(cost(futures, BREAKOUT), 20.5 / 64, atol=0.02)


def test_a_future_that_loses_the_player_is_the_worst():
    """Else a search would find the dreams in which a distant paddle melts away."""
    melted = breakout(10, (50, 50))
    melted[58] = 0
    futures = np.stack([np.stack([breakout(10, (50, 50))] * 2), np.stack([breakout(10, (50, 50)), melted])])
    for cost in (meet_the_ball, stay_under_the_ball):
        far, lost = cost(futures, BREAKOUT)
        assert far == pytest.approx(40.5 / 64, abs=0.02) and lost == pytest.approx((40.5 / 64 + 1) / 2, abs=0.02)


def test_meeting_counts_where_the_ball_is_near_and_staying_under_it_everywhere():
    """The ball falls from row 34 to row 54. One paddle is 20 pixels off at first and meets it, the other is there too early."""
    rows, ball = (34, 54), 40
    meets = np.stack([breakout(20, (rows[0], ball)), breakout(40, (rows[1], ball))])
    leaves = np.stack([breakout(40, (rows[0], ball)), breakout(20, (rows[1], ball))])
    futures = np.stack([meets, leaves])
    near, everywhere = meet_the_ball(futures, BREAKOUT), stay_under_the_ball(futures, BREAKOUT)
    assert near[0] < near[1] / 10 and everywhere[0] == pytest.approx(everywhere[1], abs=0.02)


# ---- the agent ----------------------------------------------------------------------------------------------------------


def test_the_planner_looks_again_after_the_keys_that_it_presses():
    looked: list[tuple[int, list[int]]] = []

    def imagine(frames, keys, seed):
        looked.append((len(frames), keys.tolist()))
        return lambda plans: np.zeros((*plans.shape, 64, 64, 3), np.uint8)

    def likes_larger(futures, env_id):
        return np.zeros(len(futures))

    planner = Planner(imagine, likes_larger, BREAKOUT, Search(4, 3, 1), replan_every=2, seed=0, context_frames=3)
    seen, frame = np.zeros(8), np.zeros((64, 64, 3), np.uint8)
    assert planner(seen, frame) == 0 and not looked  # no ball: nothing to plan
    seen[-1] = 1
    pressed = [planner(seen, frame) for _ in range(4)]
    assert looked == [(2, [-1, 0]), (3, [0, *pressed[:2]])] and planner.num_searches == 2


def test_all_futures_on_top_of_each_other_show_what_one_sees_and_what_most_see():
    futures = np.zeros((3, 1, 2, 2, 3), np.uint8)
    futures[1, 0, 0, 0] = 200  # in one future
    futures[:2, 0, 1, 1] = 90  # in most of them, and it must not be erased by the one without
    shown = np.zeros((1, 2, 2, 3), np.uint8)
    shown[0, 0, 0], shown[0, 1, 1] = 200, 90
    assert np.array_equal(overlaid(futures), shown)


def test_the_command_plays_all_players_from_the_same_starts_and_films_what_it_imagined(tmp_path, capsys):
    world = save_tiny_world(tmp_path / "world", "true")
    numbers = tmp_path / "planning.json"
    flags = ["--num-games", 2, "--game-steps", 60, "--rollouts", 1, 3, "--horizon", 2, "--json", numbers]
    assert call(PLAN, "--world", world, *flags, "--output", tmp_path / "futures.gif") == 0
    assert "2 games of ALE/Breakout-v5" in capsys.readouterr().out
    with Image.open(tmp_path / "futures.gif") as film:
        assert film.n_frames > 10
    players = json.loads(numbers.read_text())["players"]
    assert set(players) == {"chance", "standing_still", "a_rule_by_hand", "planning_1_rollouts", "planning_3_rollouts"}
    assert players["standing_still"]["balls_lost"] > players["a_rule_by_hand"]["balls_lost"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--rollouts", "0"], "--rollouts 0"),
        (["--output", "futures.txt"], "--output futures.txt"),
        (["--env", "ALE/Pong-v5"], "learned from a game"),
    ],
)
def test_bad_input_is_answered_with_one_sentence(tmp_path, capsys, flags, words):
    assert call(PLAN, "--world", save_tiny_world(tmp_path / "world", "true"), *flags) == 2
    assert words in (error := capsys.readouterr().err) and error.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--seed", -1), "--seed -1 must lie between 0 and 9,999"),
        (("--num-games", 0), "--num-games 0 plays nothing; give --output"),
    ],
)
def test_a_command_that_cannot_work_or_does_nothing_is_refused(capsys, flags, words):
    assert call(PLAN, *flags) == 2 and words in capsys.readouterr().err
