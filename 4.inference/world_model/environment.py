"""The dreamed game behind Gymnasium's interface, for every agent that can play one."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from world_model.world import WorldModel


class WorldModelEnv(gymnasium.Env[np.ndarray, np.int64]):
    """A learned world as a `gymnasium.Env`: uint8 RGB frames, discrete actions, seeded, without the game behind it.

        env = WorldModelEnv("assets/worlds/breakout")
        frame, info = env.reset(seed=0)
        frame, reward, terminated, truncated, info = env.step(env.action_space.sample())

    reward is always 0 and terminated always False: the world learned from pictures alone what comes next, and neither score
    nor game over is among the things it predicts. An agent's own reward belongs in a wrapper that looks at the frames, as
    `BallGame` does.
    truncated turns True after `max_steps`: dreams drift, and an agent should not learn from what is left of them by then.

    world: a WorldModel or the folder of one. max_steps: length of an episode, in frames. Every reset begins at one of the
    world's own start frames, chosen by the seed; `reset(options={"frames": uint8 (T, H, W, 3)})` begins elsewhere.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 15}  # noqa: RUF012, Gymnasium's own way to write it

    def __init__(self, world: WorldModel | Path | str, max_steps: int = 256, render_mode: str | None = None, device: str = "cpu"):
        self.world = world if isinstance(world, WorldModel) else WorldModel.load(world, device=device)
        self.max_steps = max_steps
        self.render_mode = render_mode
        self.metadata = {**self.metadata, "render_fps": round(self.world.frames_per_second)}
        self.observation_space = gymnasium.spaces.Box(0, 255, (*self.world.frame_size, 3), np.uint8)
        self.action_space = gymnasium.spaces.Discrete(max(1, self.world.num_actions))  # a world without actions has one: watch
        self.num_steps_taken = 0
        self.frame: np.ndarray | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin a new dream. Returns the last start frame as the tokenizer draws it, and which start it was."""
        super().reset(seed=seed)
        options = options or {}
        start = int(self.np_random.integers(len(self.world.start_frames)))
        frames, actions = self.world.start_frames[start], self.world.start_actions[start]
        if "frames" in options:
            start, frames, actions = -1, options["frames"], options.get("actions")
        self.frame = self.world.reset(frames, actions, seed=int(self.np_random.integers(2**31)))
        self.num_steps_taken = 0
        return self.frame.copy(), {"start_index": start}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Dream one frame under this action."""
        self.frame = self.world.step(int(action))
        self.num_steps_taken += 1
        return self.frame.copy(), 0.0, False, self.num_steps_taken >= self.max_steps, {}

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        """The newest frame, uint8 (H, W, 3), where render_mode is "rgb_array"."""
        return None if self.frame is None or self.render_mode is None else self.frame.copy()


gymnasium.register(id="WorldModel-v0", entry_point="world_model.environment:WorldModelEnv")
