"""Long contexts: is the attention exact, what does it save, and what do packing and growing contexts do to learning?

    python 3.dynamics-model/lab/long_context.py --measure exact
    python 3.dynamics-model/lab/long_context.py --measure memory --lengths 1024 2048 4096 8192
    python 3.dynamics-model/lab/long_context.py --measure training --lengths 512 1024 4096
    python 3.dynamics-model/lab/long_context.py --measure packing --seeds 0 1 2
    python 3.dynamics-model/lab/long_context.py --measure needle --lengths 160 640 --num-steps 400
    python 3.dynamics-model/lab/long_context.py --measure growth --lengths 160 640

exact      blockwise attention and rings of 2 and 4 processes against dense attention, and PyTorch's own context parallelism
memory     peak memory of dense, blockwise and PyTorch's attention, forward and backward, each point in its own process
training   peak memory and seconds of a training step of `gpt`, dense and blockwise, each point in its own process
packing    answers that are right after training on packed rows: masked and weighted, masked only, and neither
needle     answers that are right while the videos grow, by depth of the needle, and with several needles (N) and questions (R)
growth     answers at the longest context: grown in stages with a growing RoPE base, with a fixed one, and trained from scratch

One JSON file holds what was measured; each measurement replaces its own part.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from dynamics_lab.attention_memory import FRAME, memory_of_attention, memory_of_training
from dynamics_lab.exactness import all_differences
from dynamics_lab.long_training import growth_arms, needle_grid, packing_arms
from video_tokenizer.errors import InputError
from video_tokenizer.training.checkpoint import REPOSITORY, resolve_path
from video_tokenizer.training.command_line import check_seeds, check_smallest, parse_config, run_script
from video_tokenizer.training.results import format_table, read_json, save_json


@dataclass(frozen=True)
class LongContextConfig:
    """Measure attention over long contexts, and what it takes to learn from them."""

    measure: Literal["exact", "memory", "training", "packing", "needle", "growth"] = "exact"
    """what to measure"""
    lengths: tuple[int, ...] = (1_024, 2_048, 4_096)
    """tokens: exact takes the first, memory, training, needle and growth all of them, in growing order"""
    num_steps: int = 500
    """packing, needle: optimizer steps of each training, for needle at each length"""
    minutes: float = 2.0
    """growth: processor minutes of each training, the stages of a grown context together"""
    batch_tokens: int = 1_280
    """needle, growth: tokens of the videos in a batch"""
    learning_rate: float = 4e-3
    """packing, needle, growth: peak learning rate"""
    rope_base: float = 10_000.0
    """needle, growth: RoPE base at the shortest length"""
    base_factor: float = 10.0
    """needle, growth: the base grows by this factor from length to length"""
    seeds: tuple[int, ...] = (0,)
    """packing, needle, growth: each training is repeated once per seed"""
    json: str = "assets/3.dynamics-model/long_context.json"
    """file for the numbers"""

    def check(self) -> None:
        """Raise InputError for lengths that cannot be measured."""
        check_smallest(self, {"num_steps": 1, "minutes": 0.001, "learning_rate": 1e-9, "rope_base": 1, "base_factor": 1})
        check_seeds(self, "seeds")
        if not self.lengths or min(self.lengths) < 64 or list(self.lengths) != sorted(set(self.lengths)):
            raise InputError(f"--lengths {' '.join(map(str, self.lengths))} must grow, and begin with at least 64 tokens")
        if self.measure == "training" and (wrong := [length for length in self.lengths if length % FRAME or length < 2 * FRAME]):
            raise InputError(f"--lengths {wrong[0]}: gpt has {FRAME} tokens a frame and needs at least two frames")
        if self.measure in ("needle", "growth"):
            wrong = [length for length in self.lengths if length % 16 or length < 160 or self.batch_tokens % length]
            if wrong:
                raise InputError(
                    f"--lengths {wrong[0]}: a video needs at least 10 frames of 16 tokens each for 8 needles, and has to divide "
                    f"--batch-tokens {self.batch_tokens}"
                )


def measured(config: LongContextConfig) -> tuple[Any, dict[str, dict[str, Any]]]:
    """What --measure asks for, as it goes into the file and as rows of a table."""
    if config.measure == "exact":
        found = all_differences(config.lengths[0])
        rows = {f"{row['processes']} {row['layout']} {row['parts']}": row for row in found["rows"]}
        rows["context_parallel"] = found["context_parallel"]
        found["largest_output"] = max(row["output"] for row in found["rows"])
        found["largest_gradients"] = max(row["gradients"] for row in found["rows"])
        return found, {name: _in_scientific_notation(row) for name, row in rows.items()}
    if config.measure in ("memory", "training"):
        points = (memory_of_attention if config.measure == "memory" else memory_of_training)(config.lengths)
        found = {backend: {} for backend in dict.fromkeys(point["backend"] for point in points)}
        for point in points:
            found[point["backend"]][str(point["tokens"])] = {"mib": point["mib"], "seconds": point["seconds"]}
        return found, {f"{point['backend']} {point['tokens']}": point for point in points}
    arms = {"packing": packing_arms, "needle": needle_grid, "growth": growth_arms}[config.measure]
    rows = arms(config)
    return rows, rows


def _in_scientific_notation(row: dict[str, Any]) -> dict[str, Any]:
    small = ("output", "gradients")
    return {name: f"{value:.0e}" if name in small and value is not None else value for name, value in row.items()}


def main() -> None:
    config = parse_config(LongContextConfig)
    config.check()
    torch.set_num_threads(1)
    found, rows = measured(config)
    print(format_table(rows))
    file = resolve_path(Path(config.json), REPOSITORY)
    save_json(file, read_json(file) | {config.measure: found})
    print(f"numbers in {file}")


if __name__ == "__main__":
    run_script(main)
