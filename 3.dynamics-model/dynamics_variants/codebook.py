"""What models of tokens share that read each token as its code: the tokenizer's codebook, as a part of their own checkpoint."""

from typing import Any

import torch
from torch import Tensor

from dynamics_model.config import NextFrameConfig
from dynamics_model.models.base import DynamicsModel
from video_tokenizer.models.base import Tokenizer


class CodeReader(DynamicsModel):
    """A model whose input is codebook[token], not a learned embedding of the token. Its config has a field `code_length`."""

    codebook: Tensor
    """(K, D), random until `fit_tokenizer`"""

    def __init__(self, config: NextFrameConfig, code_length: int):
        super().__init__(config)
        self.register_buffer("codebook", torch.randn(config.codebook_size, code_length))

    def fit_tokenizer(self, tokenizer: Tokenizer) -> None:
        self.codebook.copy_(tokenizer.indices_to_codes(torch.arange(len(self.codebook), device=self.codebook.device)))

    @classmethod
    def sizes_from(cls, tokenizer: Tokenizer) -> dict[str, Any]:
        return super().sizes_from(tokenizer) | {"code_length": tokenizer.code_length}
