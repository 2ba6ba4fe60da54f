"""Catch: a ball falls, and a paddle has to be below it. A game so small that an agent learns it in seconds."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from uses.viper.reward import alone
from video_tokenizer.data.clip_store import ClipStoreWriter

CELLS, CELL = 16, 4
"""cells on a side, and pixels on a side of a cell"""
PADDLE = 3
"""cells of the paddle"""
EPISODE = 128
"""steps of an episode, eight balls, whatever happens: an agent that is paid negative rewards would end it if it could"""


class Catch(gymnasium.Env):
    """A ball falls one cell a step and drifts by -1, 0 or 1, reflected by the walls. Actions: 0 stays, 1 left, 2 right, one cell
    each. In the lowest row the ball pays 1 if it is caught, and the next one starts from the top.

    Observation: float32 (4,), in [-1, 1]: paddle, ball across and down, and its drift. info["frame"]: the picture, 64x64 pixels.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 15}  # noqa: RUF012, as Gymnasium has it
    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (4,), np.float32)
    action_space = gymnasium.spaces.Discrete(3)
    render_mode = "rgb_array"

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """A new episode: the paddle anywhere, a ball at the top."""
        super().reset(seed=seed)
        self.paddle, self.steps = int(self.np_random.integers(1, CELLS - 1)), 0
        self._drop()
        return self.seen(), {"frame": self.render()}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Move the paddle, then the ball."""
        self.paddle = int(np.clip(self.paddle + (0, -1, 1)[int(action)], 1, CELLS - 2))
        caught = False
        if self.row == CELLS - 1:
            self._drop()
        else:
            if not 0 <= self.column + self.drift < CELLS:
                self.drift = -self.drift
            self.column, self.row = self.column + self.drift, self.row + 1
            caught = self.row == CELLS - 1 and abs(self.column - self.paddle) <= PADDLE // 2
        self.steps += 1
        return self.seen(), float(caught), False, self.steps >= EPISODE, {"frame": self.render()}

    def seen(self) -> np.ndarray:
        """The observation."""
        places = np.array([self.paddle, self.column, self.row]) * 2 / (CELLS - 1) - 1
        return np.array([*places, self.drift], np.float32)

    def render(self) -> np.ndarray:
        """uint8 (64, 64, 3): a blue field, a white ball and an orange paddle."""
        picture = np.full((CELLS, CELLS, 3), (20, 30, 60), np.uint8)
        picture[-1, self.paddle - 1 : self.paddle + 2] = (240, 140, 40)
        picture[self.row, self.column] = (250, 250, 250)
        return picture.repeat(CELL, axis=0).repeat(CELL, axis=1)

    def _drop(self) -> None:
        self.column, self.row = int(self.np_random.integers(CELLS)), 0
        self.drift = int(self.np_random.integers(-1, 2))


def expert_action(game: Catch) -> int:
    """Move below the ball, wherever it is now."""
    return 0 if game.column == game.paddle else 1 if game.column < game.paddle else 2


def film(game: Catch, choose: Any, seed: int) -> tuple[np.ndarray, float]:
    """An episode, uint8 (EPISODE + 1, 64, 64, 3), and how many balls were caught. choose: game, observation -> action."""
    seen, info = game.reset(seed=seed)
    frames, caught = [info["frame"]], 0.0
    for _ in range(EPISODE):
        seen, score, _, _, info = game.step(choose(game, seen))
        frames.append(info["frame"])
        caught += score
    return np.stack(frames), caught


def film_expert(path: Path, num_films: int, is_alone: bool) -> None:
    """A clip store of the expert's episodes, without its actions. is_alone: each frame for itself, behind a black one."""
    game, info = Catch(), {"source": "game", "frames_per_second": 15.0, "linear_light": None}
    with ClipStoreWriter(path, (CELLS * CELL, CELLS * CELL), info) as writer:
        for number in range(num_films):
            frames, _ = film(game, lambda game, _: expert_action(game), number)
            for part in alone(frames) if is_alone else [frames]:
                writer.add_episode(part)
