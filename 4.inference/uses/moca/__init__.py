"""MoCA: edit the first frame of a clip, then animate it with a latent diffusion model."""
