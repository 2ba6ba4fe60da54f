"""Chapter 3: what happens next."""

from dynamics_model.registry import load_dynamics

__all__ = ["load_dynamics"]
