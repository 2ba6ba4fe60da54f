"""Claims about --compile: the models of the chapters become one graph each, forward and backward, whatever their quantizer."""

import pytest
import torch
from torch import nn

from dynamics_model.config import DynamicsConfig
from dynamics_model.registry import build_dynamics
from latent_action_model.config import LatentActionConfig
from latent_action_model.loading import build_latent_action_model
from video_tokenizer.registry import build_tokenizer, tokenizer_class

SMALL = {"frame_size": 16, "embed_dim": 24, "num_heads": 2, "num_blocks": 1}


def tokenizer(name: str) -> nn.Module:
    return build_tokenizer(tokenizer_class(name).config_class(**SMALL))


def latent_actions(quantizer: str) -> nn.Module:
    return build_latent_action_model(LatentActionConfig(frame_size=16, conv_width=8, quantizer=quantizer, noisy_steps=1))


@pytest.mark.parametrize(
    "build",
    [lambda: tokenizer("st-fsq"), lambda: tokenizer("st-vq"), lambda: latent_actions("vq"), lambda: latent_actions("fsq")],
    ids=["st-fsq", "st-vq", "latent actions, vq", "latent actions, fsq"],
)
def test_a_model_of_video_is_one_graph(build):
    model, video = build(), torch.rand(8, 4, 3, 16, 16)
    model(video)  # a learned codebook takes its first codes from a batch, by hand
    is_one_graph(model, video)


def test_the_dynamics_model_is_one_graph():
    model = build_dynamics(
        DynamicsConfig(embed_dim=24, num_heads=2, num_blocks=1, grid_size=(2, 2), codebook_size=8, actions="true")
    )
    is_one_graph(model, torch.randint(8, (2, 4, 4)), torch.randint(4, (2, 4)))


def is_one_graph(model: nn.Module, *inputs: torch.Tensor) -> None:
    """Compile with fullgraph=True, which raises at the first line that Python has to interrupt the graph for; train twice."""
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for _ in range(2):
        output = compiled(*inputs)
        losses = output if isinstance(output, dict) else output.losses
        picture = getattr(output, "reconstruction", torch.zeros(()))
        (picture.sum() + sum(losses.values())).backward()
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)
