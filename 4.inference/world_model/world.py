"""A learned world: load it, reset it to the first frames of a game, and step it from there."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dynamics_model import load_dynamics
from dynamics_model.data.metadata import WorldMetadata
from dynamics_model.models.action_prior import action_of_key
from dynamics_model.models.base import DecodingPass, DynamicsModel, Sampling, codes_of
from dynamics_model.sampling_flags import sampling_of
from latent_action_model import load_latent_action_model
from latent_action_model.action_map import action_given_code
from latent_action_model.models.latent_action_model import LatentActionModel
from video_tokenizer import load_tokenizer
from video_tokenizer.data.clips import to_frames, to_video
from video_tokenizer.data.video_files import BadVideo, fit_frame
from video_tokenizer.errors import InputError
from video_tokenizer.models.base import Tokenizer
from video_tokenizer.training.checkpoint import fingerprint, load_checkpoint
from video_tokenizer.training.device import autocast, choose_device


@dataclass
class RolloutState:
    """A batch of rollouts in progress. Its size does not grow with them: rolling caches and the newest frame."""

    dynamics_state: Any
    """the dynamics model's own state, with keys and values of the last `context_frames` frames"""
    decoder_cache: Any
    """keys and values of the last frames, for the tokenizer's decoder"""
    latest: Tensor
    """the newest frame as the dynamics model knows it: tokens (B, N) int64 or latents (B, N, D)"""
    frames: np.ndarray
    """(B, H, W, 3) uint8, the newest frame, decoded"""
    generator: torch.Generator
    """the RNG of this batch"""
    sampling: Sampling
    """settings of the next frames; may be replaced between two steps"""


class WorldModel:
    """Tokenizer and dynamics model behind two calls: `reset(frames)` and `step(action)`.

    Predicted frames are fed back as tokens or latents, never as pictures that would be encoded again: each round trip through
    pixels would lose a little. A step costs the same at frame 10 and at frame 10,000.

    sampling: settings of the dynamics model's `sampling_class`, None for its defaults. seed: the same seed, frames and actions
    give the same rollout. precision: "float32", "bfloat16" or "auto" (see `autocast`). use_action_prior: send the latent
    action to which its key leads in the present situation, according to the action prior (see `action_of_key`).
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        dynamics: DynamicsModel,
        latent_action_model: LatentActionModel | None = None,
        metadata: WorldMetadata | None = None,
        *,
        device: str = "cpu",
        sampling: Sampling | None = None,
        seed: int = 0,
        precision: str = "auto",
        use_action_prior: bool = True,
    ):
        self.device = choose_device(device)
        self.tokenizer = tokenizer.to(self.device).eval()
        self.dynamics = dynamics.to(self.device).eval()
        self.latent_action_model = None if latent_action_model is None else latent_action_model.to(self.device).eval()
        self.metadata = metadata or WorldMetadata()
        self.sampling = sampling or dynamics.sampling_class()
        self.seed, self.precision, self.use_action_prior = seed, precision, use_action_prior
        self.p_key_given_action = torch.as_tensor(self.key_probabilities(), device=self.device)  # (A, A)
        self.stage_seconds: dict[str, float] = {}
        """duration of the last step's parts, "dynamics" and "decoder" """
        self.current: RolloutState | None = None

    @classmethod
    def load(
        cls,
        folder: Path | str,
        device: str = "auto",
        *,
        seed: int = 0,
        precision: str = "auto",
        use_action_prior: bool = True,
        **sampling: Any,
    ) -> "WorldModel":
        """Rebuild a world from tokenizer.pt, dynamics.pt and, for latent actions, latent_action_model.pt in `folder`.

        sampling: settings of the dynamics model's `sampling_class` by name, such as temperature=0. Raises InputError if a file is
        missing, damaged or belongs to another world.
        """
        folder = Path(folder)
        if not folder.is_dir():
            problem = "is a file, not a folder" if folder.exists() else "does not exist"
            raise InputError(f"world folder {folder} {problem}; build one with: python 4.inference/build_world.py")
        tokenizer = load_tokenizer(folder / "tokenizer.pt")
        dynamics = load_dynamics(folder / "dynamics.pt")
        metadata = WorldMetadata.of_checkpoint(load_checkpoint(folder / "dynamics.pt", "dynamics"))
        latent = load_latent_action_model(folder / "latent_action_model.pt") if dynamics.action_kind == "latent" else None
        check_parts_fit(folder, tokenizer, dynamics, latent, metadata)
        return cls(
            tokenizer, dynamics, latent, metadata, device=device, sampling=sampling_of(dynamics, sampling),
            seed=seed, precision=precision, use_action_prior=use_action_prior,
        )  # fmt: skip

    @property
    def num_actions(self) -> int:
        """How many different actions `step` takes; 0 for a world without actions."""
        return self.dynamics.num_actions

    @property
    def action_kind(self) -> str:
        """What the actions are: "latent" (discovered from video), "true" (the game's own) or "none"."""
        return self.dynamics.action_kind

    @property
    def action_names(self) -> list[str]:
        """One name for each action: the game's own, or what a latent action mostly stands for."""
        names = self.metadata.latent_names if self.action_kind == "latent" else self.metadata.action_names
        return list(names) if len(names) == self.num_actions else [f"action {i}" for i in range(self.num_actions)]

    @property
    def action_map(self) -> dict[str, int]:
        """True action name -> the number to give to `step`; learned from a few labels where actions are latent."""
        return dict(self.metadata.action_map)

    def key_probabilities(self) -> np.ndarray:
        """(A, A) float32: entry a, c is P(the keys that are mapped to a | latent action c); zeros where no labels are known."""
        table = np.zeros((self.num_actions, self.num_actions), np.float32)
        counts, names = np.array(self.metadata.code_counts), self.metadata.action_names
        if self.action_kind == "latent" and counts.shape == (self.num_actions, len(names)):
            given_code = action_given_code(counts, self.metadata.key_smoothing)  # (A, keys)
            for key, name in enumerate(names):
                if name in self.action_map:
                    table[self.action_map[name]] += given_code[:, key]
        return table

    @property
    def frame_size(self) -> tuple[int, int]:
        """(height, width) of the frames in pixels, also where they are square."""
        return self.tokenizer.frame_size

    @property
    def context_frames(self) -> int:
        """How many frames the dynamics model looks back."""
        return self.dynamics.context_frames

    @property
    def frames_per_second(self) -> float:
        """The speed of the recorded game, in frames per second."""
        return float(self.metadata.frames_per_second)

    @property
    def start_frames(self) -> np.ndarray:
        """(S, T, H, W, 3) uint8: S prompts of real frames, stored in the checkpoint."""
        return self.metadata.start_frames.numpy()

    @property
    def start_actions(self) -> np.ndarray:
        """(S, T) int64: the actions that led to `start_frames`, -1 where unknown."""
        return self.metadata.start_actions.numpy()

    def reset(self, frames: np.ndarray, actions: Sequence[int] | np.ndarray | None = None, seed: int | None = None) -> np.ndarray:
        """Start a rollout after these prompt frames. Returns the last of them, encoded and decoded: (H, W, 3) uint8.

        frames: (T, H, W, 3) uint8 RGB, any T >= 1; larger ones are shrunk by area. actions: (T,), the action that led to each
        frame, -1 unknown; None lets the latent action model infer them from the frames, if there is one.
        """
        frames = self.fit_frames(frames)
        given = None if actions is None else np.asarray(actions, dtype=np.int64)[None]
        self.current = self.start_rollouts(frames[None], given, seed)
        return self.current.frames[0]

    def step(self, action: int) -> np.ndarray:
        """Predict one frame under an action in [0, num_actions), -1 for "unknown". Returns (H, W, 3) uint8."""
        if self.current is None:
            raise InputError("step() before reset(): give the world its prompt frames with reset(frames)")
        return self.step_rollouts(self.current, np.array([action]))[0]

    @torch.no_grad()
    def start_rollouts(self, frames: np.ndarray, actions: np.ndarray | None = None, seed: int | None = None) -> RolloutState:
        """Start B rollouts after prompt frames (B, T, H, W, 3) uint8 and, if known, the actions (B, T) that led to them."""
        if actions is not None and actions.shape != frames.shape[:2]:
            raise InputError(f"{frames.shape[1]} start frames came with {actions.shape[1]} actions; give one for each frame")
        recent = slice(-4 * self.context_frames, None)  # older frames hardly influence any of the models
        video = to_video(np.ascontiguousarray(frames[:, recent]), self.device)  # (B, T, C, H, W)
        actions = self.infer_actions(video) if actions is None else actions[:, recent]
        with autocast(self.device, self.precision):
            prompt, encoder_cache, decoder_cache = [], None, None
            for t in range(video.shape[1]):
                encoded, encoder_cache = self.tokenizer.encode_next(video[:, t : t + 1], encoder_cache)
                prompt.append(self.dynamics.frames_of(encoded)[:, 0])  # (B, N) or (B, N, D)
                pictures, decoder_cache = self.decode(prompt[-1], decoder_cache)
            known = torch.as_tensor(self.checked(actions), device=self.device)
            dynamics_state = self.dynamics.start(torch.stack(prompt, dim=1), known)
        generator = torch.Generator(self.device).manual_seed(self.seed if seed is None else seed)
        return RolloutState(dynamics_state, decoder_cache, prompt[-1], pictures, generator, self.sampling)

    @torch.no_grad()
    def step_rollouts(self, state: RolloutState, actions: np.ndarray, trace: list[DecodingPass] | None = None) -> np.ndarray:
        """The next frame of every rollout in the batch under actions (B,). Returns (B, H, W, 3) uint8.

        trace: a list to which each decoding pass of this frame is appended, if the dynamics model has passes.
        """
        chosen = torch.as_tensor(self.checked(actions), device=self.device)
        begun = time.perf_counter()
        with autocast(self.device, self.precision):
            prior = self.dynamics.next_action_probabilities(state.dynamics_state) if self.use_action_prior else None
            if prior is not None:
                chosen = action_of_key(chosen, prior, self.p_key_given_action, self.metadata.key_guidance)
            state.latest = self.dynamics.step(state.dynamics_state, chosen, state.sampling, state.generator, trace)
            state.latest.flatten()[0].item()  # waits for a GPU, which computes on its own after it was asked to
            predicted = time.perf_counter()
            state.frames, state.decoder_cache = self.decode(state.latest, state.decoder_cache)
        self.stage_seconds = {"dynamics": predicted - begun, "decoder": time.perf_counter() - predicted}
        return state.frames

    def rollout(
        self, frames: np.ndarray, prompt_actions: np.ndarray | None, actions: np.ndarray, seed: int | None = None
    ) -> np.ndarray:
        """Complete rollouts: prompt frames (B, T, H, W, 3), the actions (B, T) that led to them or None, then actions (B, K).

        Returns the K predicted frames, (B, K, H, W, 3) uint8.
        """
        state = self.start_rollouts(frames, prompt_actions, seed)
        return np.stack([self.step_rollouts(state, actions[:, k]) for k in range(actions.shape[1])], axis=1)

    def decode(self, frames: Tensor, cache: Any) -> tuple[np.ndarray, Any]:
        """Pictures (B, H, W, 3) uint8 of the dynamics model's frames (B, N) or (B, N, D), and the decoder's next cache."""
        video, cache = self.tokenizer.decode_next(codes_of(frames, self.tokenizer)[:, None], cache)  # (B, 1, C, H, W)
        return to_frames(video)[:, 0], cache

    @torch.no_grad()
    def infer_actions(self, video: Tensor) -> np.ndarray:
        """(B, T) actions that the latent action model infers from a video (B, T, C, H, W); -1 where that is impossible."""
        actions = np.full(tuple(video.shape[:2]), -1, dtype=np.int64)
        if self.latent_action_model is not None and video.shape[1] > 1:
            actions[:, 1:] = self.latent_action_model.encode(video).indices.cpu().numpy()
        return actions

    def checked(self, actions: np.ndarray) -> np.ndarray:
        """The same actions as int64. Raises InputError for a number this world does not have."""
        actions = np.asarray(actions, dtype=np.int64)
        if self.num_actions == 0:
            return np.full_like(actions, -1)
        if actions.min() < -1 or actions.max() >= self.num_actions:
            wrong = int(actions.min() if actions.min() < -1 else actions.max())
            raise InputError(f"this world has no action {wrong}; there are 0 to {self.num_actions - 1}")
        return actions

    def fit_frames(self, frames: np.ndarray) -> np.ndarray:
        """Check frames (T, H, W, 3) uint8 and shrink them as those of its training if they are larger than this world's.

        Those of another shape are cropped, padded or stretched as the training frames were. A game's screen is always stretched.
        """
        frames = np.asarray(frames)
        if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or len(frames) == 0:
            raise InputError(f"start frames are {frames.dtype} {frames.shape}; give uint8 RGB of shape (T, H, W, 3), T >= 1")
        height, width = self.frame_size
        if frames.shape[1:3] == (height, width):
            return frames
        fit = "stretch" if self.metadata.env_id else self.dynamics.config.fit
        try:
            return np.stack([fit_frame(frame, (height, width), fit, self.metadata.linear_light) for frame in frames])
        except BadVideo:
            size = f"{frames.shape[1]}x{frames.shape[2]} pixels"
            raise InputError(f"start frames of {size} are smaller than this world's {height}x{width}; give larger ones") from None


def check_parts_fit(
    folder: Path, tokenizer: Tokenizer, dynamics: DynamicsModel, latent: LatentActionModel | None, metadata: WorldMetadata
) -> None:
    """Raise InputError if the models of a world folder were not trained for each other."""
    sizes = dynamics.sizes_from(tokenizer)
    trained_for = {name: getattr(dynamics.config, name) for name in sizes}
    if trained_for != sizes:
        raise InputError(f"{folder}: dynamics.pt was trained for {trained_for}, but tokenizer.pt has {sizes}; copy its own one")
    stored = metadata.tokenizer_fingerprint
    if stored and stored != fingerprint(tokenizer.state_dict()):
        raise InputError(f"{folder}: dynamics.pt was trained with another tokenizer.pt; copy the one it belongs to")
    if latent is not None and latent.num_actions != dynamics.num_actions:
        raise InputError(
            f"{folder}: dynamics.pt takes {dynamics.num_actions} actions, but latent_action_model.pt has {latent.num_actions}"
        )
