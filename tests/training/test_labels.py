"""Claims about the few labels that chapter 2's training may see: which ones it sees, and what they do to the latents."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from script_runner import call, call_in_processes
from structure_checks import REPOSITORY
from torch import nn

from latent_action_model.config import LatentActionConfig
from latent_action_model.labels import LABELED_PER_KEY, WEIGHT, KeyLabels, gather_by_key
from latent_action_model.loading import build_latent_action_model
from video_tokenizer.data.clips import split_episodes
from video_tokenizer.data.training_data import split_clips
from video_tokenizer.errors import InputError
from video_tokenizer.games.moving_square import dummy_clip_store

SCRIPT = REPOSITORY / "2.latent-action-model" / "train.py"
SMALL = ("--use-dummy-data", "--conv-width", 8, "--embed-dim", 8, "--num-heads", 1, "--batch-size", 4, "--noisy-steps", 2,
         "--log-every", 1, "--validation-batches", 1, "--save-every", 3, "--num-steps", 5, "--device", "cpu",
         "--precision", "float32")  # fmt: skip
CONFIG = LatentActionConfig(frame_size=16, label_share=0.1)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """8 episodes of 64 frames with 63 transitions each."""
    return dummy_clip_store(tmp_path_factory.mktemp("square") / "store", frame_size=(16, 16))


def labels_of(store, config=CONFIG):
    return KeyLabels(split_clips(config, store), config)


class Pairs(nn.Module):
    """Stands in for an encoder: keeps what it is given, and makes a latent of the two means."""

    def __init__(self):
        super().__init__()
        self.holder, self.seen = nn.Parameter(torch.ones(1)), []

    def forward(self, pairs):
        self.seen.append(pairs)
        return self.holder * pairs.flatten(2).mean(dim=2)[:, None]  # (L, 1, 2)


def test_four_latents_of_two_keys_by_hand():
    latents, keys = torch.tensor([[0.0], [1.0], [2.0], [3.0]]), torch.tensor([0, 0, 1, 1])  # variance 1.25
    # 0: prototypes 1 and 2.5, squared distances 1 and 6.25. 1: prototypes 0 and 2.5, 1 and 2.25. 3 and 2 mirror them
    outer, inner = (math.log(1 + math.exp((own - other) / 1.25)) for own, other in ((1, 6.25), (1, 2.25)))
    assert gather_by_key(latents, keys, num_keys=2).item() == pytest.approx((outer + inner) / 2, rel=1e-4)
    absent = gather_by_key(10 * latents + 5, 2 * keys, num_keys=4)  # nothing is gained by size, and absent keys are never guessed
    assert absent.item() == pytest.approx((outer + inner) / 2, rel=1e-4)


def test_a_key_that_occurs_once_is_not_guessed_but_can_be_mistaken():
    latents, keys = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([0, 0, 1])  # variance 2/3
    # 0: prototypes 1 and 2, squared distances 1 and 4. 1: prototypes 0 and 2, 1 and 1, a toss-up. 2 has no prototype of its own
    expected = (math.log(1 + math.exp((1 - 4) / (2 / 3))) + math.log(2)) / 2
    assert gather_by_key(latents, keys, num_keys=2).item() == pytest.approx(expected, rel=1e-4)
    alone = torch.tensor([[0.0], [1.0]], requires_grad=True)
    gather_by_key(alone, torch.tensor([0, 1]), num_keys=3).backward()  # nothing can be guessed
    assert alone.grad is not None and torch.equal(alone.grad, torch.zeros(2, 1))


def test_latents_of_one_key_gather_and_different_keys_part():
    torch.manual_seed(0)
    latents, keys = torch.randn(30, 2).requires_grad_(), torch.arange(30) % 3
    optimizer = torch.optim.SGD([latents], lr=1.0)
    for _ in range(200):
        optimizer.zero_grad()
        gather_by_key(latents, keys, num_keys=3).backward()
        optimizer.step()
    centers = torch.stack([latents[keys == key].mean(dim=0) for key in range(3)])
    assert torch.equal(torch.cdist(latents, centers).argmin(dim=1), keys)


def test_labels_are_the_share_of_known_transitions_of_training_episodes(store):
    actions = store.actions.copy()
    actions[::2] = -1  # every other key is unknown
    half_known = replace(store, actions=actions)
    training, _ = split_episodes(store, CONFIG.validation_share, CONFIG.seed)
    inside = {frame for start, stop in store.episodes[training] for frame in range(start + 1, stop) if actions[frame] >= 0}
    for share in (0.1, 0.25, 1.0):
        frames = labels_of(half_known, replace(CONFIG, label_share=share)).frames
        assert len(frames) == len(set(frames)) == round(share * len(inside)) and set(frames.tolist()) <= inside
    few, many = (labels_of(store, replace(CONFIG, label_share=share)).frames for share in (0.1, 0.2))
    assert set(few) < set(many)


def test_a_step_shows_each_key_with_the_two_frames_of_its_transition(store):
    labels, encoder = labels_of(store), Pairs()
    loss = labels.loss(encoder, step=3)
    assert set(loss) == {"by_key"} and loss["by_key"].requires_grad
    (pairs,) = encoder.seen
    chosen = np.random.default_rng((CONFIG.seed, 3)).choice(labels.frames, len(pairs), replace=False)
    assert pairs.shape == (min(5 * LABELED_PER_KEY, len(labels.frames)), 2, 3, 16, 16) and set(chosen) <= set(labels.frames)
    shown = torch.tensor(np.stack([store.frames[frame - 1 : frame + 1] for frame in chosen])).permute(0, 1, 4, 2, 3)
    assert torch.equal((pairs * 255).round().byte(), shown)
    latents = pairs.flatten(2).mean(dim=2)
    keys = torch.from_numpy(store.actions[chosen].astype(np.int64))
    assert torch.equal(WEIGHT * gather_by_key(latents, keys, 5), loss["by_key"].detach())


def test_the_choice_depends_on_the_seed_alone(store):
    config = replace(CONFIG, label_share=0.5)  # more labels than one step shows
    first, again = labels_of(store, config), labels_of(store, replace(config, batch_size=3, num_frames=7, accumulate=3))
    assert np.array_equal(first.frames, again.frames)
    assert set(first.frames) != set(labels_of(store, replace(config, seed=1)).frames)
    one, other = Pairs(), Pairs()
    for step in (1, 2, 3):
        first.loss(one, step)
    again.loss(other, 3)  # a run that resumes at step 3
    assert torch.equal(one.seen[2], other.seen[0]) and not torch.equal(one.seen[1], one.seen[2])


def test_without_labels_nothing_is_added_and_with_them_no_random_number_is_used_up(store):
    encoder, state = Pairs(), torch.get_rng_state()
    assert labels_of(store, replace(CONFIG, label_share=0.0)).loss(encoder, step=1) == {} and not encoder.seen
    labels_of(store).loss(encoder, step=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert LatentActionConfig().label_share == 0.0
    names = [build_latent_action_model(replace(CONFIG, label_share=share)).state_dict().keys() for share in (0.0, 0.1)]
    assert names[0] == names[1]  # labels leave no trace in the model: there is no classifier to save


def test_a_stopped_training_with_labels_resumes_as_if_it_had_not(tmp_path):
    words = (*SMALL, "--label-share", 0.1)
    histories = []
    for folder, stop in ((tmp_path / "whole", None), (tmp_path / "stopped", 3)):
        if stop:
            log = tmp_path / "printed.log"
            assert call_in_processes(SCRIPT, *words, "--checkpoint-dir", folder, log=log, count=1, stop_after=stop) == [9]
        assert call(SCRIPT, *words, "--checkpoint-dir", folder) == 0
        history = json.loads((folder / "metrics.json").read_text())["history"]
        histories.append([(entry["loss"], entry["by_key"]) for entry in history if "loss" in entry])
    assert len(histories[0]) == 5 and histories[0] == histories[1]


def test_a_training_by_default_sees_no_key(tmp_path):
    assert call(SCRIPT, *SMALL, "--checkpoint-dir", tmp_path) == 0
    history = json.loads((tmp_path / "metrics.json").read_text())["history"]
    assert "by_key" not in history[0] and history[0]["loss"] == pytest.approx(history[0]["reconstruction"])  # in noisy steps


@pytest.mark.parametrize("share", ["1.5", "-0.1", "nan"])
def test_a_share_outside_0_to_1_is_refused(share, tmp_path, capsys):
    assert call(SCRIPT, *SMALL, f"--label-share={share}", "--checkpoint-dir", tmp_path) == 2
    assert capsys.readouterr().err == f"error: label_share {share} must lie between 0 and 1\n"


@pytest.mark.parametrize(("names", "known"), [([], "knows no keys"), (["NOOP"], "knows one key, NOOP")])
def test_a_recording_without_different_keys_is_refused(store, names, known):
    blind = replace(store, actions=np.minimum(store.actions, len(names) - 1).astype(np.int16), info={"action_names": names})
    with pytest.raises(InputError, match=f"--label-share 0.1 needs keys that differ, but .* {known}; leave the flag out"):
        labels_of(blind)
    assert labels_of(blind, replace(CONFIG, label_share=0.0)).loss(Pairs(), step=1) == {}


def test_a_share_that_leaves_nothing_to_compare_is_refused(tmp_path, capsys):
    assert call(SCRIPT, *SMALL, "--label-share", 1e-4, "--checkpoint-dir", tmp_path) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: --label-share 0.0001 needs two keys with two transitions each, but chooses 0 of 441")
