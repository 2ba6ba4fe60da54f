"""A workaround for what bfloat16 3D convolutions cannot do on CPUs and on Apple's GPUs."""

import torch
from torch import Tensor, nn


class Float32TwoFrameConv3d(nn.Module):
    """A 3D convolution that computes clips of two frames in float32 on a CPU, and on Apple's GPUs everything transposed.

    In bfloat16, the gradient of a kernel of 3 over exactly two frames contains uninitialized memory, often NaN (PyTorch 2.13,
    oneDNN). Other numbers of frames give correct gradients. Apple's GPUs have no transposed 3D convolution in bfloat16
    (pytorch#188732).
    """

    def __init__(self, convolution: nn.Conv3d | nn.ConvTranspose3d):
        super().__init__()
        self.convolution = convolution

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, T, H, W). Returns the output of the wrapped convolution."""
        transposed = isinstance(self.convolution, nn.ConvTranspose3d)
        if not ((x.device.type == "cpu" and x.shape[2] == 2) or (x.device.type == "mps" and transposed)):
            return self.convolution(x)
        with torch.autocast(x.device.type, enabled=False):
            return self.convolution(x.float())
