"""The action prior learns first and by itself: it needs many different situations per step, and none of the dynamics."""

import torch
from tqdm import tqdm

from dynamics_model.config import DynamicsConfig
from dynamics_model.models.action_prior import ActionPrior
from dynamics_model.token_cache import TokenClips
from video_tokenizer.data.clips import make_loader
from video_tokenizer.training.optimizer import learning_rate_factor

BATCH_FACTOR = 4
"""clips in a batch of the prior for each in a batch of the dynamics: a rare place must be in it"""
DECAY_SHARE = 0.2
"""last share of the steps over which the learning rate falls to zero"""


def train_action_prior(prior: ActionPrior, clips: TokenClips, config: DynamicsConfig, device: torch.device) -> float:
    """Train the prior for `config.prior_steps` steps on whole clips. Returns the mean loss of the last tenth, in nats."""
    num_steps = config.prior_steps
    optimizer = torch.optim.AdamW(prior.parameters(), lr=config.learning_rate, weight_decay=0.0)
    losses = []
    loader = make_loader(clips, BATCH_FACTOR * config.batch_size, num_steps, config.seed, split=False)
    for step, batch in enumerate(tqdm(loader, "action prior", leave=False, disable=None)):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * learning_rate_factor(step, num_steps, num_steps // 15, DECAY_SHARE)
        loss = prior.loss(batch["tokens"].to(device), batch["actions"].to(device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    optimizer.zero_grad(set_to_none=True)  # or the dynamics' gradient would be clipped by the prior's last one as well
    return torch.stack(losses[-max(1, num_steps // 10) :]).mean().item()
