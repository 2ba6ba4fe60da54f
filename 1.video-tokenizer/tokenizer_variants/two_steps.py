"""A guard against an error of bfloat16 convolutions on CPUs."""

import torch
from torch import Tensor, nn


class TwoStepsInFloat32(nn.Module):
    """A guard around a 3D convolution. On a CPU in bfloat16 the kernel's gradient is made of uninitialised memory, often NaN,
    where a kernel of 3 slides over exactly two steps (PyTorch 2.13, oneDNN); one, three or more are right. Two take float32."""

    def __init__(self, convolution: nn.Conv3d | nn.ConvTranspose3d):
        super().__init__()
        self.convolution = convolution

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, T, H, W)."""
        if x.shape[2] != 2 or x.device.type != "cpu":
            return self.convolution(x)
        with torch.autocast("cpu", enabled=False):
            return self.convolution(x.float())
