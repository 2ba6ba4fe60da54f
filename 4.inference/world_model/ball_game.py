"""A ball game for an agent, whoever plays it to the agent: the dream or the emulator.

A world predicts pictures, and nothing in it says what is good. So this is a wrapper that looks at the pictures: the detectors of
chapter 1 find ball and player, these few numbers are all that the agent sees, and it is paid for being where the ball is. That is
not the game's score. Whether it is a good stand-in for the score is what the test in the emulator shows.
"""

from typing import Any

import gymnasium
import numpy as np

from video_tokenizer.games.detectors import detect_ball, detect_player, game_facts
from video_tokenizer.games.emulator import Game
from video_tokenizer.training.command_line import InputError

SEEN = 4
"""numbers per frame: place of the player, place of the ball along the same axis and across it, and whether a ball is seen"""


class BallGame(gymnasium.Wrapper):
    """Any environment whose observations are pictures of a ball game, as an agent's small task.

    Observation: the SEEN numbers of the two newest frames, places as shares of the picture. Actions: 0 stays where it is, 1 and 2
    move to smaller and larger places. Reward: minus the distance between player and ball along the player's axis, as a share of
    the picture; 0 while no ball is seen. Then the key of action 0 is pressed whatever the agent wants: it serves, where the game
    has FIRE, and dreams, which begin with the ball in play, could not teach that. The game's own reward is in info["score"].

    keys: the environment's actions for 0, 1 and 2. Raises InputError for a game whose ball or player nobody has described.
    """

    def __init__(self, env: gymnasium.Env, env_id: str, keys: list[int]):
        super().__init__(env)
        facts = game_facts(env_id)
        if facts is None or facts.ball is None or facts.player is None:
            raise InputError(f"the ball and the player of {env_id} are not known; choose Breakout or Pong")
        self.env_id, self.keys, self.axis = env_id, keys, 0 if facts.player_axis == "x" else 1
        self.observation_space = gymnasium.spaces.Box(-1.0, 2.0, (2 * SEEN,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(3)
        self.seen = np.zeros((2, SEEN), np.float32)

    def reset(self, **options: Any) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin again; both frames of the observation are the first one."""
        frame, info = self.env.reset(**options)
        self.seen[:] = self.look(frame)
        return self.seen.flatten(), info

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Press one of the three keys and look at the next frame."""
        ball_in_play = self.seen[1, -1] > 0
        frame, score, terminated, truncated, info = self.env.step(self.keys[int(action) if ball_in_play else 0])
        self.seen = np.stack([self.seen[1], self.look(frame)])
        player, ball, _, is_seen = self.seen[1]
        reward = -float(abs(player - ball) * is_seen)
        return self.seen.flatten(), reward, terminated, truncated, info | {"score": score}

    def look(self, frame: np.ndarray) -> np.ndarray:
        """The SEEN numbers of a frame (H, W, 3) uint8; a player that is not found is where it was."""
        sides = np.array([frame.shape[1], frame.shape[0]])
        player = detect_player(frame[None], self.env_id)[0] / sides[self.axis]
        ball = detect_ball(frame[None], self.env_id)[0] / sides  # (2,) x, y
        is_seen = not np.isnan(ball).any()
        place = self.seen[1, 0] if np.isnan(player) else player
        along, across = ball[[self.axis, 1 - self.axis]] if is_seen else (0.0, 0.0)
        return np.array([place, along, across, is_seen], np.float32)


def three_keys(env_id: str, names: dict[str, int]) -> list[int]:
    """The actions that serve or stay, and that move the player to smaller and larger places. names: key -> action."""
    facts = game_facts(env_id)
    assert facts is not None, "BallGame knows this game"
    rest = "FIRE" if "FIRE" in names else "NOOP"
    missing = [key for key in (rest, *facts.player_keys) if key not in names]
    if missing:
        raise InputError(f"there is no action for the key {missing[0]}; the world's action_map has {', '.join(names) or 'none'}")
    return [names[key] for key in (rest, *facts.player_keys)]


class RealGameEnv(gymnasium.Env):
    """The emulator as `WorldModelEnv` shows the dream: pictures taken with the same delay, and the game's own score as reward."""

    def __init__(self, game: Game, max_steps: int = 1000):
        self.game, self.max_steps = game, max_steps
        self.observation_space = gymnasium.spaces.Box(0, 255, (*game.frame_size, 3), np.uint8)
        self.action_space = gymnasium.spaces.Discrete(game.num_actions)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """A new game; the same seed gives the same one."""
        super().reset(seed=seed)
        self.game.reset(int(self.np_random.integers(2**31)) if seed is None else seed)
        self.num_steps_taken = 0
        return self.game.peek(0), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Hold a key for one step."""
        before = self.game.score
        self.game.step(int(action))
        self.num_steps_taken += 1
        truncated = self.num_steps_taken >= self.max_steps
        return self.game.peek(int(action)), self.game.score - before, self.game.over, truncated, {}
