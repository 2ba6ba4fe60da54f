"""Train the action prior, before the dynamics model and with larger batches, because it needs many situations per step."""

import torch
from tqdm import tqdm

from dynamics_model.config import NextFrameConfig
from dynamics_model.data.frame_cache import FrameClips
from dynamics_model.models.action_prior import ActionPrior
from video_tokenizer.data.clips import make_loader, to_device
from video_tokenizer.training.optimizer import learning_rate_factor

BATCH_FACTOR = 4
"""how much larger the batches of the prior are than those of the dynamics model, so that they contain rare situations"""
DECAY_SHARE = 0.2
"""last share of the steps, over which the learning rate falls to zero"""


def train_action_prior(prior: ActionPrior, clips: FrameClips, config: NextFrameConfig, device: torch.device) -> float:
    """Train the prior for `config.prior_steps` steps. Returns the mean loss of the last tenth of them, in nats."""
    num_steps = config.prior_steps
    optimizer = torch.optim.AdamW(prior.parameters(), lr=config.learning_rate, weight_decay=0.0)
    losses = []
    loader = make_loader(clips, BATCH_FACTOR * config.batch_size, num_steps, config.seed, split=False)
    for step, batch in enumerate(tqdm(loader, "action prior", leave=False, disable=None)):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * learning_rate_factor(step, num_steps, num_steps // 15, DECAY_SHARE)
        loss = prior.loss(to_device(batch["frames"], device), to_device(batch["actions"], device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    optimizer.zero_grad(set_to_none=True)  # otherwise this gradient would count when that of the dynamics model is clipped
    return torch.stack(losses[-max(1, num_steps // 10) :]).mean().item()
