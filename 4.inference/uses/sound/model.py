"""The sound of a world: a tokenizer of sound, and a network that predicts its tokens from the frames.

The tokenizer is chapter 1's with one axis. A patch is a chunk of 512 samples, which is what the Atari plays during one emulator
frame, and it becomes one token. All convolutions along time are causal.
"""

from collections import deque
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from uses.sound.config import SoundConfig
from video_tokenizer.errors import InputError
from video_tokenizer.games.emulator import CHUNK, SILENT_LEVEL
from video_tokenizer.models.fsq import FiniteScalarQuantizer, Quantized
from video_tokenizer.training.checkpoint import build_with_weights, fingerprint, load_checkpoint
from video_tokenizer.training.command_line import config_from_dict
from world_model.world import WorldModel

TRAIN = "4.inference/uses/sound/train.py"
LOUDNESS = 64
"""distance from `SILENT_LEVEL` that becomes 1; the Atari's square waves have 60"""


def to_wave(sound: np.ndarray, device: str | torch.device = "cpu") -> Tensor:
    """uint8 samples (..., S) -> float32, 0 where it is silent."""
    return (torch.as_tensor(sound, device=device).float() - SILENT_LEVEL) / LOUDNESS


def to_samples(wave: Tensor) -> np.ndarray:
    """The reverse of `to_wave`, rounded and clipped to uint8."""
    return (LOUDNESS * wave.float() + SILENT_LEVEL).round().clamp(0, 255).byte().cpu().numpy()


class CausalConv(nn.Conv1d):
    """A convolution over (B, C, T) whose output at t sees the inputs up to t."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (self.kernel_size[0] - 1, 0)))


class UnitPower(nn.Module):
    """Scales the channels of (B, C, T) to a mean square of 1. Without it the latents are so small at first that FSQ rounds all of
    them to the same code, and thousands of steps pass before a second one is used."""

    def forward(self, x: Tensor) -> Tensor:
        return x * x.square().mean(dim=1, keepdim=True).add(1e-6).rsqrt()


class SoundTokenizer(nn.Module):
    """Chunks of 512 samples to tokens to chunks. A token depends on its chunk and the one before it."""

    past = 2
    """tokens before a chunk's own on which its decoded sound depends"""

    def __init__(self, levels: tuple[int, ...], width: int):
        super().__init__()
        self.quantizer = FiniteScalarQuantizer(levels)
        self.encoder = nn.Sequential(
            nn.Conv1d(1, width, CHUNK, stride=CHUNK), nn.GELU(),
            CausalConv(width, width, 2), nn.GELU(), UnitPower(), nn.Conv1d(width, len(levels), 1),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            CausalConv(len(levels), width, 2), nn.GELU(), CausalConv(width, width, 2), nn.GELU(),
            nn.ConvTranspose1d(width, 1, CHUNK, stride=CHUNK),
        )  # fmt: skip

    def encode(self, wave: Tensor) -> Quantized:
        """wave: (B, C * 512). Returns codes (B, C, D) and indices (B, C)."""
        return self.quantizer(self.encoder(wave[:, None]).transpose(1, 2))

    def decode(self, codes: Tensor) -> Tensor:
        """codes: (B, C, D). Returns the wave (B, C * 512)."""
        return self.decoder(codes.transpose(1, 2))[:, 0]


class SoundModel(nn.Module):
    """Predicts the tokens of sound that belong to a frame, from this frame, the frames before it and the sound before it."""

    silence: Tensor

    def __init__(self, config: SoundConfig):
        super().__init__()
        self.config = config
        self.register_buffer("silence", torch.zeros((), dtype=torch.int64))
        self.tokenizer = SoundTokenizer(config.levels, config.width)
        num_tokens, width = self.tokenizer.quantizer.codebook_size, config.embed_dim
        rows, columns = ((side + 1) // 2 for side in config.grid_size)
        self.eyes = nn.Sequential(
            nn.Conv2d(config.seen_frames * config.code_length, 32, 3, padding=1), nn.GELU(),
            nn.Conv2d(32, 32, 3, stride=2, padding=1), nn.GELU(),
            nn.Flatten(), nn.Linear(32 * rows * columns, width),
        )  # fmt: skip
        self.token_embedding = nn.Embedding(num_tokens, 32)
        self.ears = nn.Linear(32 * config.heard_tokens, width)
        self.chunk_embedding = nn.Embedding(config.chunks, width)
        self.head = nn.Sequential(nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, num_tokens))

    @torch.no_grad()
    def find_silence(self) -> None:
        """Keep the token of a silent chunk. It is not asked for later, since weights that were rounded may give another one."""
        self.silence.copy_(self.tokenizer.encode(torch.zeros(1, 2 * CHUNK, device=self.silence.device)).indices[0, -1])

    def look(self, codes: Tensor) -> Tensor:
        """codes: (B, T, N, D), frames as the world's tokenizer knows them. Returns what is seen (B, T - seen_frames + 1, E)."""
        windows = codes.unfold(1, self.config.seen_frames, 1)  # (B, T', N, D, F)
        rows, columns = self.config.grid_size
        grids = rearrange(windows, "b t (h w) d f -> (b t) (f d) h w", h=rows, w=columns)
        return self.eyes(grids).unflatten(0, windows.shape[:2])

    def stream(self, codes: Tensor) -> "SoundStream":
        """The sound of a rollout after these frames, codes (T, N, D)."""
        return SoundStream(self, codes)

    def forward(self, seen: Tensor, heard: Tensor, chunk: Tensor) -> Tensor:
        """seen: (..., E). heard: (..., heard_tokens) int64, oldest first. chunk: (...) which of the frame's. Returns (..., K)."""
        return self.head(seen + self.ears(self.token_embedding(heard).flatten(-2)) + self.chunk_embedding(chunk))


class SoundStream:
    """The sound of one rollout, frame by frame."""

    def __init__(self, model: SoundModel, codes: Tensor, threshold: float = 0.5):
        """codes: (T, N, D) of the frames before the first that sounds, T >= 1. threshold: how probable it must be that a chunk is
        not silent. Sampling the tokens would start one sound in three in the middle of nowhere: each of many chunks has its small
        probability. The most probable token would be silence nearly always: the others share theirs among many tokens."""
        self.model, self.threshold, self.silence = model, threshold, int(model.silence)
        config = model.config
        self.codes = deque([codes[max(0, t)] for t in range(len(codes) - config.seen_frames, len(codes))], config.seen_frames)
        self.tokens: list[int] = []

    @torch.no_grad()
    def next(self, codes: Tensor) -> np.ndarray:
        """codes: (N, D) of the next frame. Returns its sound, uint8 (chunks * 512,)."""
        model, config = self.model, self.model.config
        self.codes.append(codes)
        seen = model.look(torch.stack(list(self.codes))[None].float())[0, 0]  # (E,)
        heard = [self.silence] * config.heard_tokens + self.tokens
        for chunk in range(config.chunks):
            past = torch.tensor(heard[-config.heard_tokens :], device=seen.device)
            probability = model(seen, past, torch.tensor(chunk, device=seen.device)).softmax(dim=-1)  # (K,)
            quiet = float(probability[self.silence])
            probability[self.silence] = 0.0
            heard.append(int(probability.argmax()) if 1 - quiet > self.threshold else self.silence)
        tokens = torch.tensor([[*self.tokens, *heard[-config.chunks :]]], device=seen.device)
        wave = model.tokenizer.decode(model.tokenizer.quantizer.indices_to_codes(tokens))[0, -config.chunks * CHUNK :]
        self.tokens = tokens[0, -max(config.heard_tokens, model.tokenizer.past, config.chunks) :].tolist()
        return to_samples(wave)


def emulator_frames(world: WorldModel) -> int:
    """How many emulator frames a frame of the world stands for, and so how many tokens of sound it has."""
    return world.metadata.frame_skip or 4


def load_sound(path: str | Path, world: WorldModel) -> SoundModel:
    """The model of a checkpoint, in evaluation mode, where the world is. Raises InputError for a file that holds none, or one
    that was trained on the tokens of another world."""
    if not Path(path).exists():
        raise InputError(f"{path} does not exist; train it with python {TRAIN} and this --world")
    content = load_checkpoint(path, "sound")
    config = config_from_dict(SoundConfig, content["config"])
    config.check()
    needed = fingerprint(world.tokenizer.state_dict()), emulator_frames(world)
    if (content.get("tokenizer_fingerprint"), config.chunks) != needed:
        raise InputError(
            f"{path} was trained on another world than this one; train it with python {TRAIN} and this --world, and until then "
            "move the file away"
        )
    return build_with_weights(lambda: SoundModel(config), content, path).to(world.device).eval()
