"""A learned world as a Gymnasium environment, for any agent that plays one."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from video_tokenizer.errors import InputError
from world_model.world import WorldModel


class WorldModelEnv(gymnasium.Env[np.ndarray, np.int64]):
    """A learned world as a `gymnasium.Env`: uint8 RGB frames, discrete actions, seeded; the real game is not involved.

        env = WorldModelEnv("assets/worlds/breakout")
        frame, info = env.reset(seed=0)
        frame, reward, terminated, truncated, info = env.step(env.action_space.sample())

    reward is always 0 and terminated always False: the world predicts frames, and neither a score nor the end of a game. An
    agent's own reward belongs in a wrapper that looks at the frames, such as `BallGame`. truncated turns True after `max_steps`:
    rollouts drift, and an agent should not learn from drifted frames.

    world: a WorldModel or the folder of one. max_steps: length of an episode, in frames. Every reset starts from one of the
    world's own start clips, chosen by the seed; `reset(options={"frames": uint8 (T, H, W, 3)})` starts from other frames.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 15}  # noqa: RUF012, Gymnasium's own way to write it

    def __init__(self, world: WorldModel | Path | str, max_steps: int = 256, render_mode: str | None = None, device: str = "cpu"):
        self.world = world if isinstance(world, WorldModel) else WorldModel.load(world, device=device)
        if max_steps < 1:
            raise InputError(f"max_steps {max_steps} leaves no step; give at least 1")
        self.max_steps = max_steps
        self.render_mode = render_mode
        self.metadata = {**self.metadata, "render_fps": round(self.world.frames_per_second)}
        self.observation_space = gymnasium.spaces.Box(0, 255, (*self.world.frame_size, 3), np.uint8)
        self.action_space = gymnasium.spaces.Discrete(max(1, self.world.num_actions))  # without actions: one that does nothing
        self.num_steps_taken = 0
        self.frame: np.ndarray | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Start a new rollout. Returns the last start frame, encoded and decoded, and the number of the start clip."""
        super().reset(seed=seed)
        start = int(self.np_random.integers(len(self.world.start_frames)))
        frames, actions = self.world.start_frames[start], self.world.start_actions[start]
        if options and "frames" in options:
            start, frames, actions = -1, options["frames"], options.get("actions")
        self.frame = self.world.reset(frames, actions, seed=int(self.np_random.integers(2**31)))
        self.num_steps_taken = 0
        return self.frame.copy(), {"start_index": start}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Predict one frame under this action. Raises InputError for an action that the world does not have."""
        if action not in self.action_space:
            raise InputError(f"there is no action {action}; give one from 0 to {max(1, self.world.num_actions) - 1}")
        self.frame = self.world.step(int(action))
        self.num_steps_taken += 1
        return self.frame.copy(), 0.0, False, self.num_steps_taken >= self.max_steps, {}

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        """The newest frame, uint8 (H, W, 3), if render_mode is "rgb_array"."""
        return None if self.frame is None or self.render_mode is None else self.frame.copy()


gymnasium.register(id="WorldModel-v0", entry_point="world_model.environment:WorldModelEnv")
