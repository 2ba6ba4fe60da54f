"""Claims about busy places, which let chapter 2's training look where a recording changes most."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from script_runner import call
from structure_checks import REPOSITORY
from torch.nn.functional import binary_cross_entropy

from latent_action_model import load_latent_action_model
from latent_action_model.config import LatentActionConfig
from latent_action_model.loading import build_latent_action_model
from latent_action_model.metrics import mutual_information
from latent_action_model.places import busy_places
from video_tokenizer.data.clip_store import ClipStore
from video_tokenizer.games.moving_square import dummy_clip_store

SCRIPT = REPOSITORY / "2.latent-action-model" / "train.py"
SMALL = ("--use-dummy-data", "--frame-size", 16, "--conv-width", 8, "--batch-size", 4, "--num-steps", 2, "--noisy-steps", 1,
         "--validation-batches", 1, "--device", "cpu", "--place-power")  # fmt: skip
SIDE = 32
CONFIG = LatentActionConfig(frame_size=SIDE, conv_width=16, noisy_steps=50, place_power=1.0)


def recorded(*episodes):
    """A clip store of these episodes, each uint8 (T, H, W, 3), in memory."""
    stops = np.cumsum([len(frames) for frames in episodes])
    ranges = np.stack([stops - [len(frames) for frames in episodes], stops], axis=1)
    return ClipStore(Path(), np.concatenate(episodes), np.full(stops[-1], -1, np.int16), ranges, {"frame_size": [SIDE, SIDE]})


@pytest.fixture
def two_places():
    """Two episodes. One place blinks at every step and another at every tenth. All else is black in the first episode and white
    in the second."""
    frames = np.zeros((2, 41, SIDE, SIDE, 3), np.uint8)
    frames[1] = 255
    frames[:, 1::2, 4, 4], frames[:, ::2, 4, 4] = 255, 0
    frames[:, :, 20, 20] = 255 * (np.arange(41) // 10 % 2)[None, :, None]
    return recorded(*frames)


def test_a_place_that_changes_ten_times_as_often_weighs_ten_times_as_much(two_places):
    weights = busy_places(two_places, power=1)
    assert weights.mean().item() == pytest.approx(1)
    assert weights[4, 4] == weights[3, 5] and weights[4, 4] == pytest.approx(10 * weights[20, 20])  # squares of 3 x 3
    root = busy_places(two_places, power=0.5)
    assert (root[4, 4] / root[20, 20]).item() == pytest.approx(10**0.5)


def test_the_cut_between_two_episodes_is_no_change(two_places):
    assert busy_places(two_places, power=1)[10, 10] == 0


def test_all_places_weigh_alike_without_it_and_where_nothing_changes(two_places):
    assert busy_places(two_places, power=0).tolist() == [1.0]
    still = recorded(np.full((5, SIDE, SIDE, 3), 9, np.uint8))
    assert torch.equal(busy_places(still, power=1), torch.ones(SIDE, SIDE))


def test_the_loss_and_the_pooling_weigh_every_pixel_by_its_place():
    torch.manual_seed(0)
    model, video = build_latent_action_model(CONFIG).eval(), torch.rand(2, 3, 3, SIDE, SIDE)
    model.encoder.place_weights.copy_(torch.rand(SIDE, SIDE))
    with torch.no_grad():
        output = model(video)
    expected = 100 * (model.encoder.place_weights * (output.prediction - video[:, 1:]) ** 2).mean()
    assert output.losses["reconstruction"].item() == pytest.approx(expected.item())
    other = build_latent_action_model(replace(CONFIG, reconstruction_loss="bce")).eval()
    other.encoder.place_weights.copy_(model.encoder.place_weights)
    with torch.no_grad():
        output = other(video)
    expected = (model.encoder.place_weights * binary_cross_entropy(output.prediction, video[:, 1:], reduction="none")).mean()
    assert output.losses["reconstruction"].item() == pytest.approx(expected.item(), rel=1e-4)

    with torch.no_grad():
        latents = model.encoder(video).flatten(0, 1)
        assert not torch.allclose(latents[0], latents[1])
        model.encoder.place_weights.zero_()  # no place counts, so every movement pools to zeros and they all look alike
        assert torch.equal(*model.encoder(video).flatten(0, 1)[:2])


def test_a_checkpoint_keeps_its_places_and_the_default_model_has_none(tmp_path):
    assert "encoder.place_weights" not in build_latent_action_model(replace(CONFIG, place_power=0.0)).state_dict()
    assert call(SCRIPT, *SMALL, 1, "--checkpoint-dir", tmp_path / "run") == 0
    places = load_latent_action_model(tmp_path / "run" / "final_model.pt").encoder.place_weights
    assert torch.equal(places, busy_places(dummy_clip_store(tmp_path / "square", frame_size=(16, 16)), power=1))


def test_a_model_without_places_takes_frames_of_any_size_and_one_with_places_starts_from_new_ones(tmp_path):
    without = build_latent_action_model(replace(CONFIG, place_power=0.0)).eval()
    assert without.encode(torch.rand(1, 2, 3, 24, 40)).indices.shape == (1, 1)
    assert call(SCRIPT, *SMALL, 1, "--checkpoint-dir", tmp_path / "run") == 0
    assert call(SCRIPT, *SMALL, 2, "--init-from", tmp_path / "run" / "best_model.pt", "--checkpoint-dir", tmp_path / "next") == 0
    models = (load_latent_action_model(tmp_path / name / "best_model.pt") for name in ("run", "next"))
    first, second = (model.encoder.place_weights for model in models)
    assert torch.allclose(second, first**2 / (first**2).mean())  # and not those of the checkpoint that it starts from


@pytest.mark.parametrize("power", ["-1", "nan", "5"])
def test_an_impossible_power_is_refused(power, tmp_path, capsys):
    assert call(SCRIPT, *SMALL[:-1], f"--place-power={power}", "--checkpoint-dir", tmp_path / "run") == 2
    assert capsys.readouterr().err.startswith(f"error: place_power {power}") and not (tmp_path / "run").exists()


def traffic(rng, number=800):
    """A game in one take: a player of 3 x 3 pixels in the left strip goes up, down or nowhere, as its key says, and 12 cars go as
    they like and cross the strip, too. Returns frames uint8 (number, 32, 32, 3) and keys (number,), where 1 is nowhere."""
    frames, keys = np.zeros((number, SIDE, SIDE, 3), np.uint8), rng.integers(0, 3, number)
    row, cars = 15, rng.integers(0, SIDE - 2, 12)
    for index in range(number):
        row = int(np.clip(row + 2 * (keys[index] - 1), 10, 20))
        cars = (cars + rng.integers(-3, 4, 12)) % (SIDE - 2)
        for lane, column in enumerate(cars):
            frames[index, 2 + 2 * lane : 4 + 2 * lane, column : column + 3] = 230
        frames[index, row : row + 3, 1:4] = 255
    return frames, keys


def test_up_is_told_from_down_among_cars_that_nobody_steers():
    frames, keys = traffic(np.random.default_rng(0))
    pairs = torch.from_numpy(np.stack([frames[:-1], frames[1:]], axis=1)).permute(0, 1, 4, 2, 3) / 255  # (799, 2, 3, 32, 32)
    walks, told = keys[401:] != 1, {}
    for power in (0.0, 1.0):
        torch.manual_seed(0)
        model = build_latent_action_model(replace(CONFIG, place_power=power)).train()
        model.encoder.place_weights.copy_(busy_places(recorded(frames), power))
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        for _ in range(160):
            losses = model(pairs[torch.randint(400, (32,))]).losses  # the first half is trained on, and the second half scored
            optimizer.zero_grad()
            torch.stack([*losses.values()]).sum().backward()
            optimizer.step()
        with torch.no_grad():
            codes = model.eval().encode(pairs[400:]).indices[:, 0].numpy()
        told[power] = mutual_information(codes[walks], keys[401:][walks]) / np.log(2)
    assert told[1.0] > 0.3 > 1.5 * told[0.0]
