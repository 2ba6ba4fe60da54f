"""Chapter 4: a learned world to play in, to measure, and to train agents in."""

from world_model.environment import WorldModelEnv
from world_model.world import WorldModel

__all__ = ["WorldModel", "WorldModelEnv"]
