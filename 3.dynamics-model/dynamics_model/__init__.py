"""Chapter 3: what happens next."""

from dynamics_model.loading import load_dynamics

__all__ = ["load_dynamics"]
