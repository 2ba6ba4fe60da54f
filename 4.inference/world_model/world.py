"""A learned world: load it, show it how a game begins, and play on in its imagination."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dynamics_model import load_dynamics
from dynamics_model.models.action_prior import replace_implausible_actions
from dynamics_model.models.maskgit import DecodingPass, DynamicsModel, DynamicsState
from latent_action_model import load_latent_action_model
from latent_action_model.action_map import action_given_code
from latent_action_model.models.latent_action_model import LatentActionModel
from video_tokenizer import load_tokenizer
from video_tokenizer.data.clips import to_frames, to_video
from video_tokenizer.data.video_files import resize_by_area
from video_tokenizer.models.base import Tokenizer
from video_tokenizer.training.checkpoint import fingerprint, load_checkpoint
from video_tokenizer.training.command_line import InputError
from video_tokenizer.training.device import autocast, choose_device
from world_model.sampling import NUM_STEPS, TEMPERATURE, TOP_P, Sampling

FEW_LABELS = 0.3
"""smoothing of P(key | code): a code that came five times, always with LEFT, is believed"""


@dataclass
class Dream:
    """A batch of games being dreamed, in a memory that does not grow: rolling caches and the newest frame."""

    dynamics: DynamicsState
    """keys and values of the last `context_frames` frames, for the dynamics model"""
    decoder: Any
    """keys and values of the last frames, for the tokenizer's decoder"""
    tokens: Tensor
    """(B, N) int64 tokens of the newest frame"""
    frames: np.ndarray
    """(B, H, W, 3) uint8, the newest frame as the decoder draws it"""
    generator: torch.Generator
    """where every random choice of this batch comes from"""
    sampling: Sampling
    """how tokens are drawn from here on; may be replaced between two frames"""


class WorldModel:
    """Tokenizer and dynamics model behind two calls: `reset(frames)` and `step(action)`.

    What is dreamed is fed back as tokens, never as pictures that would be encoded again: each round trip through the
    pixels would lose a little. A step costs the same at frame 10 and at frame 10,000.

    num_steps: sampling steps per frame. temperature: of the token draws. top_k: draw among the k likeliest tokens only
    (None: all). top_p: draw among the likeliest tokens that together have this share only (1: all). order: which tokens are
    settled first, "confidence" or "random". seed: same seed, frames and actions give the same dream. precision: "float32",
    "bfloat16" or "auto" (see `autocast`). replace_impossible: a latent action that has never been seen in the present situation
    gives way to what the same key leads to here (see `replace_implausible_actions`).
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        dynamics: DynamicsModel,
        latent_action_model: LatentActionModel | None = None,
        facts: dict[str, Any] | None = None,
        *,
        device: str = "cpu",
        num_steps: int = NUM_STEPS,
        temperature: float = TEMPERATURE,
        top_k: int | None = None,
        top_p: float = TOP_P,
        order: str = "confidence",
        seed: int = 0,
        precision: str = "auto",
        replace_impossible: bool = True,
    ):
        self.device = choose_device(device)
        self.tokenizer = tokenizer.to(self.device).eval()
        self.dynamics = dynamics.to(self.device).eval()
        self.latent_action_model = None if latent_action_model is None else latent_action_model.to(self.device).eval()
        self.facts = facts or {}
        self.sampling = Sampling(num_steps, temperature, top_k, top_p, order)
        self.seed, self.precision = seed, precision
        self.replace_impossible = replace_impossible
        known = replace_impossible and self.action_kind == "latent"
        self.p_key_given_code = torch.as_tensor(self.key_of_action(), device=self.device) if known else None
        self.stage_seconds: dict[str, float] = {}
        """how long the parts of the last step took: "dynamics" and "decoder" """
        self.current: Dream | None = None

    @classmethod
    def load(cls, folder: Path | str, device: str = "auto", **options: Any) -> "WorldModel":
        """Rebuild a world from tokenizer.pt, dynamics.pt and, for latent actions, latent_action_model.pt in `folder`.

        options: num_steps, temperature, top_k, top_p, order, seed, precision, replace_impossible. Raises InputError where a
        file is missing, damaged or made for another world.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise InputError(f"world folder {folder} does not exist; build one with: python 4.inference/build_world.py")
        tokenizer = load_tokenizer(folder / "tokenizer.pt")
        dynamics = load_dynamics(folder / "dynamics.pt")
        facts = load_checkpoint(folder / "dynamics.pt", "dynamics")
        latent_path = folder / "latent_action_model.pt"
        latent = load_latent_action_model(latent_path) if facts["action_kind"] == "latent" else None
        check_parts_fit(folder, tokenizer, dynamics, latent, facts)
        return cls(tokenizer, dynamics, latent, facts, device=device, **options)

    @property
    def num_actions(self) -> int:
        """How many different actions `step` takes; 0 for a world that only goes on by itself."""
        return self.dynamics.num_actions

    @property
    def action_kind(self) -> str:
        """What the actions are: "latent" (discovered from video), "true" (the game's own) or "none"."""
        return self.dynamics.action_kind

    @property
    def action_names(self) -> list[str]:
        """One name for each action: the game's own, or what a latent action mostly stands for."""
        names = self.facts.get("latent_names" if self.action_kind == "latent" else "action_names") or []
        return list(names) if len(names) == self.num_actions else [f"action {i}" for i in range(self.num_actions)]

    @property
    def action_map(self) -> dict[str, int]:
        """True action name -> the number to give to `step`; learnt from few labels where actions are latent."""
        return dict(self.facts.get("action_map") or {})

    def key_of_action(self) -> np.ndarray:
        """(A, A) float32: entry a, c is P(the keys that are mapped to a | latent action c); zeros where no labels are known."""
        table = np.zeros((self.num_actions, self.num_actions), np.float32)
        counts = np.array(self.facts.get("code_counts") or [])
        if counts.shape == (self.num_actions, len(self.facts.get("action_names") or [])):
            given_code = action_given_code(counts, FEW_LABELS)  # (A, keys)
            for key, name in enumerate(self.facts["action_names"]):
                if name in self.action_map:
                    table[self.action_map[name]] += given_code[:, key]
        return table

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width of the frames, in pixels."""
        return self.tokenizer.frame_size

    @property
    def context_frames(self) -> int:
        """How many frames the dynamics model looks back."""
        return self.dynamics.context_frames

    @property
    def frames_per_second(self) -> float:
        """The speed of the recorded game, in frames per second."""
        return float(self.facts.get("frames_per_second") or 15.0)

    @property
    def start_frames(self) -> np.ndarray:
        """(S, T, H, W, 3) uint8: S real beginnings, stored in the checkpoint."""
        return torch.as_tensor(self.facts["start_frames"]).numpy()

    @property
    def start_actions(self) -> np.ndarray:
        """(S, T) int64: the actions of `start_frames`, as numbers for `step`, -1 where unknown."""
        return torch.as_tensor(self.facts["start_actions"]).numpy()

    def reset(self, frames: np.ndarray, actions: Sequence[int] | np.ndarray | None = None, seed: int | None = None) -> np.ndarray:
        """Begin a dream where these frames end. Returns the last of them as the tokenizer draws it: (H, W, 3) uint8.

        frames: (T, H, W, 3) uint8 RGB, any T >= 1; another size is shrunk by area. actions: (T,), the action that led to
        each frame, -1 unknown; None lets the latent action model read them off the frames, if there is one.
        """
        frames = self.fit_frames(frames)
        given = None if actions is None else np.asarray(actions, dtype=np.int64)[None]
        self.current = self.begin(frames[None], given, seed)
        return self.current.frames[0]

    def step(self, action: int) -> np.ndarray:
        """Dream one frame under an action in [0, num_actions), -1 for "unknown". Returns (H, W, 3) uint8."""
        if self.current is None:
            raise InputError("step() before reset(): show the world its first frames with reset(frames)")
        return self.advance(self.current, np.array([action]))[0]

    @torch.no_grad()
    def begin(self, frames: np.ndarray, actions: np.ndarray | None = None, seed: int | None = None) -> Dream:
        """Start B dreams at once from frames (B, T, H, W, 3) uint8 and, where known, the actions (B, T) that led to them."""
        if actions is not None and actions.shape != frames.shape[:2]:
            raise InputError(f"{frames.shape[1]} start frames came with {actions.shape[1]} actions; give one for each frame")
        recent = slice(-4 * self.context_frames, None)  # what is older hardly reaches any of the models
        video = to_video(np.ascontiguousarray(frames[:, recent]), self.device)  # (B, T, C, H, W)
        actions = self.infer_actions(video) if actions is None else actions[:, recent]
        with autocast(self.device, self.precision):
            tokens, decoder, picture, encoder = [], None, None, None
            for t in range(video.shape[1]):
                encoded, encoder = self.tokenizer.encode_frame(video[:, t], encoder)
                picture, decoder = self.tokenizer.decode_frame(encoded.indices, decoder)
                tokens.append(encoded.indices)  # (B, N)
            known = torch.as_tensor(self.checked(actions), device=self.device)
            state = self.dynamics.start(torch.stack(tokens, dim=1), known)
        assert picture is not None, "video has at least one frame"
        generator = torch.Generator(self.device).manual_seed(self.seed if seed is None else seed)
        return Dream(state, decoder, tokens[-1], to_frames(picture[:, None])[:, 0], generator, self.sampling)

    @torch.no_grad()
    def advance(self, dream: Dream, actions: np.ndarray, trace: list[DecodingPass] | None = None) -> np.ndarray:
        """Dream the next frame of every game in the batch under actions (B,). Returns (B, H, W, 3) uint8.

        trace: a list to which each sampling step of this frame is appended.
        """
        chosen = torch.as_tensor(self.checked(actions), device=self.device)
        draws: dict[str, Any] = {**vars(dream.sampling), "generator": dream.generator}
        begun = time.perf_counter()
        with autocast(self.device, self.precision):
            if self.p_key_given_code is not None:
                prior = self.dynamics.next_action_probabilities(dream.dynamics)
                chosen = replace_implausible_actions(chosen, prior, self.p_key_given_code, dream.generator)
            dream.tokens = self.dynamics.generate_next(dream.dynamics, chosen, **draws, trace=trace)
            predicted = time.perf_counter()
            picture, dream.decoder = self.tokenizer.decode_frame(dream.tokens, dream.decoder)  # (B, C, H, W)
        dream.frames = to_frames(picture[:, None])[:, 0]
        self.stage_seconds = {"dynamics": predicted - begun, "decoder": time.perf_counter() - predicted}
        return dream.frames

    def dream(self, frames: np.ndarray, known: np.ndarray | None, actions: np.ndarray, seed: int | None = None) -> np.ndarray:
        """Whole dreams: start frames (B, T, H, W, 3) with their actions `known` (B, T) or None, then actions (B, K).

        Returns the K dreamed frames, (B, K, H, W, 3) uint8.
        """
        dream = self.begin(frames, known, seed)
        return np.stack([self.advance(dream, actions[:, k]) for k in range(actions.shape[1])], axis=1)

    @torch.no_grad()
    def infer_actions(self, video: Tensor) -> np.ndarray:
        """(B, T) action numbers read off a video (B, T, C, H, W) by the latent action model; -1 where nobody can know."""
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
        """Check frames (T, H, W, 3) uint8 and shrink them by area to this world's size where they are larger."""
        frames = np.asarray(frames)
        if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or len(frames) == 0:
            raise InputError(f"start frames are {frames.dtype} {frames.shape}; give uint8 RGB of shape (T, H, W, 3), T >= 1")
        height, width = self.frame_size
        if frames.shape[1:3] == (height, width):
            return frames
        if frames.shape[1] < height or frames.shape[2] < width:
            raise InputError(
                f"start frames of {frames.shape[1]}x{frames.shape[2]} pixels are smaller than this world's {height}x{width}; "
                "give larger ones"
            )
        return np.stack([resize_by_area(frame, (height, width)) for frame in frames])


def check_parts_fit(
    folder: Path, tokenizer: Tokenizer, dynamics: DynamicsModel, latent: LatentActionModel | None, facts: dict[str, Any]
) -> None:
    """Raise InputError where the models of a world folder were not trained for each other."""
    if (tokenizer.codebook_size, tokenizer.tokens_per_frame) != (dynamics.codebook_size, dynamics.tokens_per_frame):
        raise InputError(
            f"{folder}: dynamics.pt predicts {dynamics.tokens_per_frame} tokens out of {dynamics.codebook_size}, tokenizer.pt "
            f"writes {tokenizer.tokens_per_frame} out of {tokenizer.codebook_size}; train the dynamics on this tokenizer"
        )
    stored = facts.get("tokenizer_fingerprint")
    if stored and stored != fingerprint(tokenizer.state_dict()):
        raise InputError(f"{folder}: dynamics.pt was trained on the tokens of another tokenizer.pt; copy the one it belongs to")
    if latent is not None and latent.num_actions != dynamics.num_actions:
        raise InputError(
            f"{folder}: dynamics.pt takes {dynamics.num_actions} actions, but latent_action_model.pt has {latent.num_actions}"
        )
