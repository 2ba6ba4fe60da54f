"""Policies that choose the actions while a game is recorded.

`random` samples a new action at every step. If actions were held, a latent action model could predict most of them from the past
and would only learn "same as before" or "changed". But random play hardly ever returns the ball, so the dynamics model needs
`scripted` games with long rallies. `mixed`, the default, records about as many frames of each. Random steps also lead nowhere:
the chicken of Freeway stays in the lower half of the road. A `wandering` player goes to all places.
"""

from collections.abc import Sequence

import numpy as np

from video_tokenizer.errors import InputError
from video_tokenizer.games.detectors import GAMES, ball_position, game_facts, player_position
from video_tokenizer.games.emulator import Game, Policy

POLICY_NAMES = ("random", "scripted", "wandering", "mixed")
SCRIPTED_GAMES = tuple(env_id for env_id, facts in GAMES.items() if facts.ball is not None)
WANDERING_GAMES = tuple(env_id for env_id, facts in GAMES.items() if facts.player is not None)


def random_policy(game: Game, rng: np.random.Generator) -> int:
    """A new uniformly random action at every step, or FIRE where the game waits for it."""
    if game.needs_fire and game.fire_action is not None:
        return game.fire_action
    return int(rng.integers(game.num_actions))


def scripted_policy(game: Game, noise: float = 0.1, aim_error: float = 1.5) -> Policy:
    """A player that follows the ball, whose position it reads from the Atari's RAM.

    noise: share of steps with a random action instead. aim_error: standard deviation, in recorded pixels at 64x64, of the point
    on the paddle that should meet the ball. It changes every 16 steps or so, which makes the ball leave at different angles.
    Raises InputError for a game without a known ball.
    """
    facts = game_facts(game.env_id)
    if facts is None or facts.ball is None:
        raise InputError(
            f"there is no scripted player for {game.env_id}, only for {', '.join(SCRIPTED_GAMES)}; use --policy random"
        )
    axis = 0 if facts.player_axis == "x" else 1
    smaller, larger = (game.action_names.index(key) for key in facts.player_keys)
    noop = game.action_names.index("NOOP")
    aim, last_ball, last_direction = 0.0, np.nan, 0

    def choose(game: Game, rng: np.random.Generator) -> int:
        nonlocal aim, last_ball
        if rng.random() < 1 / 16:
            aim = rng.normal(0.0, aim_error)
        assert game.ram is not None
        ball = float(ball_position(game.ram, game.env_id)[axis])
        speed = 0.0 if np.isnan(last_ball) else ball - last_ball
        last_ball = ball
        if game.needs_fire and game.fire_action is not None:
            return game.fire_action
        if np.isnan(ball) or rng.random() < noise:
            return int(rng.integers(game.num_actions))
        player = float(player_position(game.ram, game.env_id)) + facts.player_glide * last_direction
        distance = ball + speed + aim - player  # after this step, if the player stays where it is
        if abs(distance) < facts.player_step / 2:
            return noop
        return larger if distance > 0 else smaller

    def follow_ball(game: Game, rng: np.random.Generator) -> int:
        nonlocal last_direction
        action = choose(game, rng)
        last_direction = (action == larger) - (action == smaller)
        return action

    return follow_ball


def wandering_policy(game: Game, noise: float = 2 / 3) -> Policy:
    """A player that wanders from one random place along its axis to the next. It reads from the Atari's RAM where it is.

    noise: share of steps with a random action instead; with fewer of them, a dynamics model may guess the next key from the last
    frames and no longer listen to it. Raises InputError for a game without a known player.
    """
    facts = game_facts(game.env_id)
    if facts is None or facts.player is None:
        raise InputError(
            f"the player of {game.env_id} is not known, only those of {', '.join(WANDERING_GAMES)}; use --policy random"
        )
    smaller, larger = (game.action_names.index(key) for key in facts.player_keys)
    aim = np.nan

    def wander(game: Game, rng: np.random.Generator) -> int:
        nonlocal aim
        assert game.ram is not None
        player = float(player_position(game.ram, game.env_id))
        if not abs(aim - player) > 1 or rng.random() < 1 / 64:  # there, or no aim yet, or one out of reach
            aim = rng.uniform(0, 64)  # in the pixels of player_position
        if game.needs_fire and game.fire_action is not None:
            return game.fire_action
        if rng.random() < noise:
            return int(rng.integers(game.num_actions))
        return larger if aim > player else smaller

    return wander


def replay(actions: Sequence[int] | np.ndarray) -> Policy:
    """Play the given actions in order, then NOOP (action 0).

    With the same seed, `replay(episode.actions[1:])` reproduces an episode bit for bit.
    """
    remaining = iter([int(action) for action in actions])
    return lambda game, rng: next(remaining, 0)


class MixedPolicy:
    """Chooses the player of the next episode: the one with fewer recorded frames so far, random first."""

    def __init__(self, players: dict[str, Policy]):
        self.players = players
        self.num_frames = dict.fromkeys(players, 0)

    def next_player(self) -> tuple[str, Policy]:
        name = min(self.players, key=lambda name: self.num_frames[name])
        return name, self.players[name]


def make_players(name: str, game: Game) -> dict[str, Policy]:
    """The players that take turns under `--policy name`: {"random": ...}, {"scripted": ...}, both, or {"wandering": ...}.

    In a game without a known ball, mixed is random alone and scripted an InputError, as is an unknown name.
    """
    if name not in POLICY_NAMES:
        raise InputError(f"there is no policy {name!r}; choose one of {', '.join(POLICY_NAMES)}")
    players: dict[str, Policy] = {}
    if name in ("random", "mixed"):
        players["random"] = random_policy
    if name == "scripted" or (name == "mixed" and game.env_id in SCRIPTED_GAMES):
        players["scripted"] = scripted_policy(game)
    if name == "wandering":
        players["wandering"] = wandering_policy(game)
    return players
