"""What the papers claim of their dynamics models, as experiments of minutes on one CPU core. How they are read: claims.py."""

from pathlib import Path

import torch

from dynamics_model import load_dynamics
from dynamics_model.data.prepare import prepare_frames
from dynamics_model.metrics import FrameScores, copy_bits_per_code
from dynamics_model.registry import dynamics_config
from tokenizer_lab.claims import Experiment
from video_tokenizer.data.training_data import evenly_spaced
from video_tokenizer.data.validation import open_validation_data
from video_tokenizer.training.checkpoint import load_checkpoint
from video_tokenizer.training.config import ValidationConfig
from video_tokenizer.training.device import autocast

CLIPS = 128
"""validation clips that are scored, of twice the training's frames"""
BATCH = 16

EXPERIMENTS = {
    one.name: one
    for one in (
        Experiment(
            name="twice-the-context",
            claim="Looking back twice as far as in training costs a learned table of frames more bits than rotary positions, and "
            "those more than ALiBi.",
            source="ALiBi, figure 1: beyond the length of training, perplexity explodes soon with sinusoidal positions, later "
            "with rotary ones, and not with ALiBi; language, WikiText-103",
            arms={
                "learned": "--model gpt --no-random-start",
                "rope": "--model gpt --positions rope",
                "alibi": "--model gpt --positions alibi",
            },
            metric="bits_added_by_frames_before",
            direction="falls",
            also_shown=("bits_at_length_trained", "bits_at_twice_the_length", "copy_bits"),
        ),
        Experiment(
            name="depth",
            claim="A deeper prior needs fewer bits per code.",
            source="VideoGPT, table 2.4 of the thesis: 2, 4, 8 and 16 layers need 2.84, 2.52, 2.39 and 2.05 bits; BAIR",
            arms={f"{blocks}-block{'s' * (blocks > 1)}": f"--model gpt --num-blocks {blocks}" for blocks in (1, 2, 4)},
            metric="bits_at_length_trained",
            direction="falls",
            also_shown=("copy_bits",),
        ),
    )
}


@torch.no_grad()
def bits_at_two_lengths(checkpoint: Path) -> dict[str, float]:
    """Bits per code of the same frames, with a past as in training and with one that is twice as long.

    A clip has 2 T frames, T being the training's. The second half is read as a clip by itself, and then behind the first half. So
    its frames T + 1 .. 2 T - 1 are predicted from 1 .. T - 1 frames, as in training, and from T + 1 .. 2 T - 1.
    bits_added_by_frames_before: the second less the first; below 0 where a longer past helps.
    copy_bits: of a copy of the frame before that knows how often it is wrong.
    """
    content = load_checkpoint(checkpoint, "dynamics")
    device, length = torch.device("cpu"), dynamics_config(content["config"]).num_frames
    model = load_dynamics(checkpoint, num_frames=2 * length, context_frames=2 * length)
    data = open_validation_data(ValidationConfig(), model.config, content)
    prepared = prepare_frames(model.config, data.store, device, lambda _: None)
    clips, alone, behind = prepared.clips(data.validation), FrameScores(), FrameScores()
    chosen = evenly_spaced(len(clips), CLIPS)
    for first in range(0, len(chosen), BATCH):
        batch = clips.__getitems__(chosen[first : first + BATCH])
        frames, actions = batch["frames"], batch["actions"]
        with autocast(device, model.config.precision):
            short = model.teacher_forced(frames[:, length:], actions[:, length:]).error
            long = model.teacher_forced(frames, actions).error[:, length:]
        for scores, error in ((alone, short), (behind, long)):
            scores.update(error, None, frames[:, length + 1 :], frames[:, length:-1])
    nats = torch.tensor([alone.result()["loss"], behind.result()["loss"]])
    short, long = (nats / torch.tensor(2.0).log()).tolist()
    copy = copy_bits_per_code(alone.result()["share_changed"], model.config.codebook_size)
    return {
        "bits_at_length_trained": short,
        "bits_at_twice_the_length": long,
        "bits_added_by_frames_before": long - short,
        "copy_bits": copy,
    }
