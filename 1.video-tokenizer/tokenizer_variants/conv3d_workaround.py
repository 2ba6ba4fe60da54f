"""A workaround for a defect of bfloat16 convolutions on CPUs."""

import torch
from torch import Tensor, nn


class Float32TwoFrameConv3d(nn.Module):
    """A 3D convolution that computes clips of two frames in float32 on a CPU.

    In bfloat16 the gradient of a kernel of 3 that slides over exactly two frames is made of uninitialized memory, often NaN
    (PyTorch 2.13, oneDNN); one, three or more frames are right.
    """

    def __init__(self, convolution: nn.Conv3d | nn.ConvTranspose3d):
        super().__init__()
        self.convolution = convolution

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, T, H, W)."""
        if x.shape[2] != 2 or x.device.type != "cpu":
            return self.convolution(x)
        with torch.autocast("cpu", enabled=False):
            return self.convolution(x.float())
