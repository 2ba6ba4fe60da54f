"""Chapter 2: the actions nobody labelled."""

from latent_action_model.loading import load_latent_action_model

__all__ = ["load_latent_action_model"]
