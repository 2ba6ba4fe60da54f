"""What would it cost? Operations, memory and hours of training the dynamics model, from this course's size to Genie's.

    python 3.dynamics-model/lab/costs.py
    python 3.dynamics-model/lab/costs.py --gpu-tflops 312 --gpu-gib 40 --utilisation 0.4

operations of a step = counted, from the matrix products of one forward and one backward pass; Genie's: 6 * parameters * tokens
hours                = operations of all steps / (GPUs * peak * utilisation) / 3600
memory               = 28 bytes a parameter (weights, gradients, two moments, running average, the model that is validated; Muon
                       has one moment less) + the activations of one part of the batch:
                       60 * E bytes for each token and block, because norms and residuals stay in float32; with activation
                       checkpointing 8 * E (the block's input, its keys and values), and 60 * E for the block being recomputed;
                       10 bytes a logit (bfloat16, float32, gradient). A test compares the sum with a pretended card.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from dynamics_model.config import PRESETS, DynamicsConfig
from dynamics_model.registry import build_dynamics
from video_tokenizer.errors import InputError
from video_tokenizer.training.command_line import check_smallest, parse_config, run_script
from video_tokenizer.training.results import format_table, save_json

GRIDS = {"tiny": (8, 8), "small": (16, 16), "paper": (16, 16)}
"""tokens of a frame of 64 x 64 pixels, with patches of 8 and of 4"""
GENIE = {"parameters": 10.1e9, "tokens_of_a_step": 942e9 / 125_000, "num_steps": 125_000, "width": 5120, "num_blocks": 48}
"""Genie's largest dynamics model (arXiv:2402.15391, section 2.2 and appendix): 125,000 steps, 942 billion tokens"""
BYTES_PER_PARAMETER = 28
BYTES_PER_LOGIT = 10
GPUS = (1, 8)


@dataclass(frozen=True)
class CostsConfig:
    """Operations, memory and hours of training the dynamics model at every size."""

    gpu_tflops: float = 989.0
    """peak of one GPU for bfloat16 matrix products, in TFLOP/s; 989 is an H100's, without sparsity"""
    gpu_gib: float = 80.0
    """memory of one GPU, in GiB"""
    utilisation: float = 0.15
    """share of the peak that training reaches: a guess, as no GPU was at hand; every training on a GPU prints its frames/s"""
    json: str | None = None
    """file for the numbers"""


def operations_of_a_step(config: DynamicsConfig) -> tuple[int, int]:
    """(parameters, operations of one forward and backward pass), counted on tensors with a shape but no data."""
    with torch.device("meta"):
        model = build_dynamics(config).train()
        tokens = torch.zeros(config.batch_size, config.num_frames, model.tokens_per_frame, dtype=torch.int64)
        actions = torch.zeros(config.batch_size, config.num_frames, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        model.loss(tokens, actions)["cross_entropy"].backward()
    return sum(parameter.numel() for parameter in model.parameters()), counter.get_total_flops()


def activation_bytes(tokens: float, width: int, num_blocks: int, num_logits: float, checkpointing: bool) -> float:
    """Bytes of activations at the peak. tokens: of the past and the present stream, which take turns in a recomputed block."""
    blocks = 8 * num_blocks + 60 / 2 if checkpointing else 60 * num_blocks
    return tokens * width * blocks + num_logits * BYTES_PER_LOGIT


def cost(
    parameters: float, step_operations: float, num_steps: int, activations: float, config: CostsConfig, share: float
) -> dict[str, Any]:
    """One row. The GPUs share activations, and also weights and moments if these do not fit on one."""
    memory = (BYTES_PER_PARAMETER * parameters + activations) / 2**30
    total = step_operations * num_steps
    row: dict[str, Any] = {
        "parameters": int(parameters),
        "tflop_of_a_step": step_operations / 1e12,
        "steps": num_steps,
        "memory_gib": memory,
    }
    for gpus in GPUS:
        hours = total / (gpus * config.gpu_tflops * 1e12 * share) / 3600
        row[f"hours_on_{gpus}"] = hours
        row[f"fits_on_{gpus}"] = "yes" if memory <= gpus * config.gpu_gib else "no"
    return row


def main() -> None:
    config = parse_config(CostsConfig)
    check_smallest(config, {"gpu_tflops": 1, "gpu_gib": 1})
    share = config.utilisation
    if not 0 < share <= 1:
        raise InputError(f"--utilisation {share} is not a share of the peak; give a number above 0 and at most 1")
    rows = {}
    for preset, grid in GRIDS.items():
        size = DynamicsConfig(actions="true", grid_size=grid, **PRESETS[preset])
        parameters, operations = operations_of_a_step(size)
        predicted = size.batch_size // size.accumulate * (size.num_frames - 1) * grid[0] * grid[1]  # tokens of the present
        logits = predicted * size.codebook_size
        activations = activation_bytes(2 * predicted, size.embed_dim, size.num_blocks, logits, size.activation_checkpointing)
        rows[preset] = cost(parameters, operations, size.num_steps, activations, config, share)
    operations = 6 * GENIE["parameters"] * GENIE["tokens_of_a_step"]
    tokens = GENIE["tokens_of_a_step"]
    activations = activation_bytes(tokens, int(GENIE["width"]), int(GENIE["num_blocks"]), tokens / 2 * 1_024, checkpointing=True)
    rows["genie"] = cost(GENIE["parameters"], operations, int(GENIE["num_steps"]), activations, config, share)
    print(f"{config.gpu_tflops:.0f} TFLOP/s and {config.gpu_gib:.0f} GiB per GPU, of whose peak training reaches {share:.2f}")
    print(format_table(rows))
    if config.json:
        save_json(config.json, {"utilisation": share, "gpu_tflops": config.gpu_tflops, "gpu_gib": config.gpu_gib, "rows": rows})


if __name__ == "__main__":
    run_script(main)
