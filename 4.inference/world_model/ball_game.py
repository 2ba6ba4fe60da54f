"""A ball game as a reinforcement learning task, in a learned world or in the emulator.

A world predicts frames but no rewards. This wrapper detects the ball and the player in the frames, with the detectors of chapter
1. The agent observes only their positions, and its reward is to be close to the ball. This differs from the score of the game.
The test in the emulator shows whether it is a good substitute.
"""

from typing import Any

import gymnasium
import numpy as np

from video_tokenizer.errors import InputError
from video_tokenizer.games.detectors import detect_ball, detect_player, game_facts
from video_tokenizer.games.emulator import Game

SEEN = 4
"""numbers per frame: the player's position, the ball's position along the same axis and across it, and 1 if there is a ball"""


class BallGame(gymnasium.Wrapper):
    """Wraps any environment whose observations are frames of a ball game.

    Observation: the SEEN numbers of the two newest frames, with positions as shares of the frame.
    Actions: 0 stays, 1 and 2 move to smaller and larger positions. While there is no ball, action 0 replaces the agent's choice.
    In games with FIRE it serves the ball, which the agent cannot learn from rollouts, because they start with the ball in play.
    Reward: minus the distance between player and ball along the player's axis, as a share of the frame; 0 if there is no ball.
    info holds the reward of the wrapped environment, "score", and the "frame" itself.

    keys: the actions of the environment for 0, 1 and 2. Raises InputError for a game whose ball or player cannot be detected.
    """

    def __init__(self, env: gymnasium.Env, env_id: str, keys: list[int]):
        super().__init__(env)
        facts = game_facts(env_id)
        if facts is None or facts.ball is None or facts.player is None:
            raise InputError(f"the ball and the player of {env_id} cannot be detected; choose Breakout or Pong")
        self.env_id, self.keys, self.axis = env_id, keys, 0 if facts.player_axis == "x" else 1
        self.observation_space = gymnasium.spaces.Box(-1.0, 2.0, (2 * SEEN,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(3)
        self.seen = np.zeros((2, SEEN), np.float32)

    def reset(self, **options: Any) -> tuple[np.ndarray, dict[str, Any]]:
        """Restart. Both frames of the observation are the first frame."""
        frame, info = self.env.reset(**options)
        self.seen[:] = self.look(frame)
        return self.seen.flatten(), info | {"frame": frame}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Press one of the three keys and observe the next frame."""
        ball_in_play = self.seen[1, -1] > 0
        frame, score, terminated, truncated, info = self.env.step(self.keys[int(action) if ball_in_play else 0])
        self.seen = np.stack([self.seen[1], self.look(frame)])
        player, ball, _, is_seen = self.seen[1]
        reward = -float(abs(player - ball) * is_seen)
        return self.seen.flatten(), reward, terminated, truncated, info | {"score": score, "frame": frame}

    def look(self, frame: np.ndarray) -> np.ndarray:
        """The SEEN numbers of a frame, uint8 (H, W, 3). A player that is not detected keeps its last position."""
        sides = np.array([frame.shape[1], frame.shape[0]])
        player = detect_player(frame[None], self.env_id)[0] / sides[self.axis]
        ball = detect_ball(frame[None], self.env_id)[0] / sides  # (2,) x, y
        is_seen = not np.isnan(ball).any()
        place = self.seen[1, 0] if np.isnan(player) else player
        along, across = ball[[self.axis, 1 - self.axis]] if is_seen else (0.0, 0.0)
        return np.array([place, along, across, is_seen], np.float32)


def three_keys(env_id: str, names: dict[str, int]) -> list[int]:
    """The actions that stay (or serve), and that move the player to smaller and larger positions. names: key -> action."""
    facts = game_facts(env_id)
    assert facts is not None, "BallGame supports this game"
    rest = "FIRE" if "FIRE" in names else "NOOP"
    missing = [key for key in (rest, *facts.player_keys) if key not in names]
    if missing:
        raise InputError(f"there is no action for the key {missing[0]}; the available keys are {', '.join(names) or 'none'}")
    return [names[key] for key in (rest, *facts.player_keys)]


class RealGameEnv(gymnasium.Env):
    """The emulator with the interface of `WorldModelEnv`: frames with the same delay, and the score of the game as reward.

    info["balls_lost"]: lives or points that the step has cost.
    """

    def __init__(self, game: Game, max_steps: int = 1000):
        self.game, self.max_steps = game, max_steps
        self.observation_space = gymnasium.spaces.Box(0, 255, (*game.frame_size, 3), np.uint8)
        self.action_space = gymnasium.spaces.Discrete(game.num_actions)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Start a new game; the same seed gives the same game."""
        super().reset(seed=seed)
        self.game.reset(int(self.np_random.integers(2**31)) if seed is None else seed)
        self.num_steps_taken = 0
        return self.game.peek(0), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Hold a key for one step."""
        score, lives = self.game.score, self.game.lives
        self.game.step(int(action))
        self.num_steps_taken += 1
        truncated = self.num_steps_taken >= self.max_steps
        gained = self.game.score - score
        lost = lives - self.game.lives + max(0.0, -gained)
        return self.game.peek(int(action)), gained, self.game.over, truncated, {"balls_lost": lost}
