"""The latent action model: discover the actions of a game from video alone."""

from dataclasses import dataclass
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from latent_action_model.config import LatentActionConfig
from latent_action_model.models.action_encoder import ActionEncoder
from latent_action_model.models.next_frame_decoder import NextFrameDecoder, logits_of
from latent_action_model.models.quantizers import ActionQuantizer, SignQuantizer


class ActionEncoding(NamedTuple):
    """indices: (B, T - 1) int64, entry t for the action that led from frame t to t + 1. codes: (B, T - 1, A)."""

    indices: Tensor
    codes: Tensor


@dataclass
class LatentActionOutput:
    """prediction: (B, T - 1, C, H, W), the predicted frames 1 .. T - 1. indices: (B, T - 1). losses: "reconstruction" and the
    quantizer's terms; training minimizes their sum."""

    prediction: Tensor
    indices: Tensor
    losses: dict[str, Tensor]


class LatentActionModel(nn.Module):
    """Genie's latent action model (arXiv:2402.15391, section 2.1).

    The encoder sees the next frame and compresses it into one of `num_actions` codes. The decoder must predict the next frame
    from the past and that code. The most useful code carries what the past does not determine: the player's action.
    At inference the player chooses the code, so the encoder is not needed, and the quantizer only looks codes up.
    """

    def __init__(self, config: LatentActionConfig):
        super().__init__()
        self.config = config
        self.num_actions = config.num_actions
        self.frame_size = config.frame_height_width
        self.quantizer: ActionQuantizer | SignQuantizer
        if config.quantizer == "vq":
            self.quantizer = ActionQuantizer(
                config.num_actions, config.code_dim, config.commitment_weight, config.noisy_steps, config.restart_after
            )
        else:
            self.quantizer = SignQuantizer(config.num_actions, config.balance_weight)
        self.encoder = ActionEncoder(config, self.quantizer.latent_dim)
        self.decoder = NextFrameDecoder(config, self.quantizer.latent_dim)

    def encode(self, video: Tensor) -> ActionEncoding:
        """video: (B, T, C, H, W) in [0, 1], T >= 2. Returns an action per transition: indices (B, T - 1), codes (B, T - 1, A)."""
        quantized = self.quantizer(self.encoder(video))
        return ActionEncoding(quantized.indices, quantized.codes)

    def decode(self, past: Tensor, codes: Tensor) -> Tensor:
        """past: (B, T - 1, C, H, W), frame t at entry t. codes: (B, T - 1, A).

        Returns (B, T - 1, C, H, W) in [0, 1], frame t + 1 at entry t.
        """
        change = self.decoder(past, codes)
        if self.config.reconstruction_loss == "bce":
            return (logits_of(past) + change).sigmoid()
        return (past + change).clamp(0, 1)

    def decode_indices(self, past: Tensor, indices: Tensor) -> Tensor:
        """`decode` for code numbers: past (B, T - 1, C, H, W), indices (B, T - 1) int64 in [0, num_actions)."""
        return self.decode(past, self.quantizer.indices_to_codes(indices))

    def forward(self, video: Tensor) -> LatentActionOutput:
        """video: (B, T, C, H, W) in [0, 1]. Returns the predicted frames 1 .. T - 1, the actions and the losses."""
        quantized = self.quantizer(self.encoder(video))
        past, future, weights = video[:, :-1], video[:, 1:], self.encoder.place_weights
        change = self.decoder(past, quantized.codes)
        if self.config.reconstruction_loss == "bce":
            logits = logits_of(past) + change
            reconstruction = F.binary_cross_entropy_with_logits(logits, future, weights)
            prediction = logits.sigmoid()
        else:
            prediction = past + change
            # the mean over all pixels is tiny where little moves; this scale only makes it comparable to the quantizer's terms
            reconstruction = self.config.reconstruction_weight * (weights * (prediction - future) ** 2).mean()
        return LatentActionOutput(
            prediction.clamp(0, 1), quantized.indices, {"reconstruction": reconstruction} | quantized.losses
        )
