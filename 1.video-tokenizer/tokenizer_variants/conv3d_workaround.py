"""A workaround for a bug in bfloat16 3D convolutions on CPUs."""

import torch
from torch import Tensor, nn


class Float32TwoFrameConv3d(nn.Module):
    """A 3D convolution that computes clips of two frames in float32 on a CPU.

    In bfloat16, the gradient of a kernel of 3 over exactly two frames contains uninitialized memory, often NaN (PyTorch 2.13,
    oneDNN). Other numbers of frames give correct gradients.
    """

    def __init__(self, convolution: nn.Conv3d | nn.ConvTranspose3d):
        super().__init__()
        self.convolution = convolution

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, T, H, W). Returns the output of the wrapped convolution."""
        if x.shape[2] != 2 or x.device.type != "cpu":
            return self.convolution(x)
        with torch.autocast("cpu", enabled=False):
            return self.convolution(x.float())
