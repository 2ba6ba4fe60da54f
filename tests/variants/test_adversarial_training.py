"""What a tokenizer is trained against: the discriminator, the distance of features, and the number that shows what they buy."""

import json
import math

import pytest
import torch
import torch.nn.functional as F
from script_runner import call, load_script
from tiny_tokenizers import flags, tiny_config
from torch import nn

from tokenizer_variants.magvit2.discriminator import (
    BlurPool3d,
    Discriminator,
    ScoreAverages,
    discriminator_loss,
    generator_loss,
    gradient_penalty,
)
from tokenizer_variants.magvit2.model import moving_sharpness
from tokenizer_variants.perceptual import FrameGapNetwork, PerceptualDistance, chosen_distance
from video_tokenizer import lpips
from video_tokenizer.errors import InputError
from video_tokenizer.games.moving_square import dummy_clip_store
from video_tokenizer.registry import build_tokenizer
from video_tokenizer.training.checkpoint import REPOSITORY, load_checkpoint, read_torch_file


def line(*values: float) -> torch.Tensor:
    """A video (1, 1, T, 1, 1) of one pixel."""
    return torch.tensor(values, dtype=torch.float32)[None, None, :, None, None]


def test_blur_pooling_keeps_a_constant_and_loses_no_light():
    halved = BlurPool3d()
    assert torch.allclose(halved(torch.full((1, 2, 5, 6, 8), 0.3)), torch.tensor(0.3))
    assert halved(torch.rand(1, 2, 5, 6, 8)).shape == (1, 2, 3, 3, 4)
    assert halved(line(0, 0, 8, 0)).flatten().tolist() == [0, 4]
    assert halved(line(0, 8, 0, 0)).flatten().tolist() == [2, 2]
    assert halved(line(0, 0, 0, 8)).flatten().tolist() == [0, 2]  # the other 2 belong to a value beyond the end
    kernel = halved(torch.eye(8)[:, None, :, None, None])[2:7, 0, :, 0, 0]  # what each input gives to each output
    assert kernel[:, 2].tolist() == [0, 0.25, 0.5, 0.25, 0] and kernel[:, 2].sum() == 1


def test_blur_pooling_forgives_a_shift_of_a_pixel_and_a_strided_convolution_does_not():
    torch.manual_seed(0)
    pictures = torch.rand(16, 4, 1, 33, 33)
    convolution = nn.Conv3d(4, 4, 3, stride=2, padding=1, groups=4, bias=False).requires_grad_(False)

    def change(pool) -> float:
        here, there = pool(pictures[..., :-1]), pool(pictures[..., 1:])
        return float((here - there).std() / here.std())

    assert change(BlurPool3d()) < 0.9 < 1.2 < change(convolution)


@pytest.mark.parametrize(("kind", "at_start"), [("hinge", 2.0), ("non-saturating", 2 * math.log(2))])
def test_a_fresh_discriminator_has_no_opinion(kind, at_start):
    torch.manual_seed(0)
    scores = Discriminator((8, 16))(torch.rand(4, 4, 3, 16, 16))
    assert scores.shape == (4, 1, 4, 4)
    assert discriminator_loss(*scores.chunk(2), kind=kind).item() == pytest.approx(at_start, abs=0.02)


@pytest.mark.parametrize("blur_pool", [True, False])
@pytest.mark.parametrize("frames", [2, 3, 4, 5])
def test_the_discriminator_learns_the_same_in_both_number_formats(frames, blur_pool):
    """Whatever the clip's length becomes on the way down; see Float32TwoFrameConv3d for the length that needs care."""
    torch.manual_seed(0)
    network, video, gradients = Discriminator((16, 16, 32), blur_pool), torch.rand(4, frames, 3, 32, 32), []
    for enabled in (False, True):
        network.zero_grad()
        [torch.full((size,), float("nan")) for size in (2**12, 2**14, 2**16, 2**20)]  # is freed at once: NaN lies in memory
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            network(video).square().sum().backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in network.parameters()]))
    assert (gradients[0] - gradients[1]).norm() < 0.05 * gradients[0].norm()


def test_the_losses_by_hand():
    real, drawn = torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 1.0])
    assert discriminator_loss(real, drawn, "hinge").item() == (0 + 0.5) / 2 + (0 + 2) / 2
    assert generator_loss(drawn, "hinge").item() == 1.0
    assert generator_loss(torch.zeros(3), "non-saturating").item() == pytest.approx(math.log(2))
    saved = generator_loss(torch.tensor([20.0]), "non-saturating")
    assert saved.item() < 1e-6  # who is taken for real has nothing to gain


def test_the_penalty_is_half_the_squared_slope():
    class Slope(nn.Module):
        def forward(self, video):
            return 3 * video.sum(dim=(1, 2, 3, 4))[:, None]

    video = torch.rand(2, 1, 1, 2, 2)
    assert gradient_penalty(Slope(), video).item() == pytest.approx(0.5 * 4 * 3**2)  # four pixels, each with slope 3


def test_the_running_means_of_the_scores_move_and_pull_back():
    averages = ScoreAverages(decay=0.9)
    real, drawn = torch.tensor([2.0]), torch.tensor([-1.0])
    assert averages.penalty(real, drawn).item() == pytest.approx(2.0**2 + 1.0**2)
    averages.update(real, drawn)
    assert (averages.real, averages.fake) == (pytest.approx(0.2), pytest.approx(-0.1))
    assert averages.penalty(torch.tensor([-0.2]), torch.tensor([0.3])).item() == 0  # each on the other's side already


TRAIN = REPOSITORY / "1.video-tokenizer/tokenizer_variants/magvit2/train.py"


def trained(folder, *changes) -> list[dict]:
    """What ten steps of the script log, step by step."""
    data = dummy_clip_store(folder / "data", num_episodes=4, episode_frames=32, frame_size=(16, 16)).path
    common = ["--data-path", data, "--num-steps", 10, "--log-every", 1, "--validation-batches", 1, "--batch-size", 2]
    assert call(TRAIN, *common, "--device", "cpu", *flags("magvit2"), *changes, "--checkpoint-dir", folder / "run") == 0
    history = json.loads((folder / "run" / "metrics.json").read_text())["history"]
    return [entry for entry in history if "loss" in entry]


def test_the_discriminator_joins_late(tmp_path):
    """Of ten steps five without it, three in which it only learns, and two in which the tokenizer has to fool it."""
    steps = trained(tmp_path, "--adversarial-start", 0.5, "--adversarial-lead", 0.2, "--perceptual-weight", 0)
    assert ["discriminator" in entry for entry in steps] == [False] * 5 + [True] * 5
    assert ["adversarial" in entry for entry in steps] == [False] * 8 + [True] * 2
    kept = read_torch_file(tmp_path / "run" / "resume.pt")
    assert {"discriminator", "discriminator_optimizer", "averages"} <= kept.keys() and "perceptual" not in kept


def test_the_discriminator_sees_every_part_of_an_accumulated_batch(tmp_path):
    """The first step's gradient, which Adam remembers times 1 - 0.9, from a batch in one part and in two."""
    remembered = []
    for parts in (1, 2):
        more = ["--adversarial-start", 0, "--perceptual-weight", 0, "--num-steps", 1, "--precision", "float32", "--r1-weight", 1]
        trained(tmp_path / str(parts), *more, "--r1-every", 1, "--accumulate", parts)
        kept = read_torch_file(tmp_path / str(parts) / "run" / "resume.pt")
        remembered.append([moments["exp_avg"] for moments in kept["discriminator_optimizer"]["state"].values()])
    *gradients, bias = zip(*remembered, strict=True)
    for one, other in gradients:
        assert (one - other).abs().max() < 1e-4 * one.abs().max()
    assert bias[0].abs() < 1e-6  # a fresh discriminator pushes real clips up as much as others down: only rounding is left


def test_what_only_training_needs_is_in_no_checkpoint(tmp_path):
    steps = trained(tmp_path, "--perceptual-share", 0.3)
    assert ["gaps_guessed" in entry for entry in steps] == [True] * 3 + [False] * 7  # first the network learns,
    assert ["perceptual" in entry for entry in steps] == [False] * 3 + [True] * 7  # then it is frozen and used
    weights = load_checkpoint(tmp_path / "run" / "final_model.pt", "tokenizer")["weights"]
    assert not [key for key in weights if not key.startswith(("encoder.", "decoder."))]


def test_the_adversarial_gradient_reaches_the_encoder_and_leaves_the_discriminator_alone():
    torch.manual_seed(0)
    tokenizer = build_tokenizer(tiny_config("magvit2")).train()
    discriminator = Discriminator((8, 8)).requires_grad_(False)
    generator_loss(discriminator(tokenizer(torch.rand(2, 4, 3, 16, 16)).reconstruction), "hinge").backward()
    assert tokenizer.encoder.from_pixels.convolution.weight.grad.abs().sum() > 0  # type: ignore[union-attr]
    assert all(parameter.grad is None for parameter in discriminator.parameters())


def test_the_discriminator_learns_to_tell_noise_from_clips():
    torch.manual_seed(0)
    wide = torch.rand(2, 1, 3, 16, 20)
    video = torch.cat([wide[..., t : t + 16] for t in range(4)], dim=1)  # noise that moves by a pixel a frame
    discriminator, errors = Discriminator((8, 8)), []
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=1e-3, betas=(0.9, 0.99))
    for _ in range(80):
        loss = discriminator_loss(*discriminator(torch.cat([video, torch.rand_like(video)])).chunk(2), "hinge")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(loss.item())
    assert errors[0] == pytest.approx(2, abs=0.05) and errors[-1] < 1


@pytest.mark.parametrize(("weight", "kept"), [("0", 1), ("0.1", 3)])
def test_with_a_discriminator_the_best_weights_are_the_newest(weight, kept, tmp_path, monkeypatch):
    """The error rises with every step here, as it does when a discriminator joins: without one the first weights are kept."""
    script = load_script(TRAIN)
    errors = iter([1.0, 2.0, 3.0])
    measured = script.validate
    monkeypatch.setattr(script, "validate", lambda *given: measured(*given) | {"weighted_error": next(errors)})
    data = dummy_clip_store(tmp_path / "data", num_episodes=4, episode_frames=32, frame_size=(16, 16)).path
    common = ["--data-path", data, "--num-steps", 3, "--validate-every", 1, "--validation-batches", 1, "--device", "cpu"]
    own = [*flags("magvit2"), "--batch-size", 2, "--adversarial-weight", weight]
    assert call(TRAIN, *common, *own, "--checkpoint-dir", tmp_path / "run") == 0
    assert load_checkpoint(tmp_path / "run" / "best_model.pt", "tokenizer")["step"] == kept


def test_the_frame_gap_network_sees_how_far_things_have_moved():
    torch.manual_seed(0)
    video = torch.zeros(32, 4, 3, 16, 16)
    for clip in range(32):
        row, column = torch.randint(12, (2,)).tolist()
        for t in range(4):
            video[clip, t, :, row : row + 2, column + t : column + t + 2] = 1.0
    distance = PerceptualDistance("frame-gap", 4, "float32", torch.device("cpu"))
    guessed = [distance.train_step(video, last=False)["gaps_guessed"] for _ in range(60)]
    assert sum(guessed[-10:]) / 10 > 0.5  # by chance it is a quarter


def test_a_distance_is_zero_from_a_picture_to_itself_and_grows():
    network = FrameGapNetwork(4)
    frames = torch.rand(3, 3, 16, 16)
    noise = torch.randn_like(frames)
    near, far = (network.distance(frames + size * noise, frames).item() for size in (0.01, 0.1))
    assert network.distance(frames, frames).item() == 0 < near < far


def test_lpips_is_used_where_its_weights_are_and_never_downloaded(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert chosen_distance("auto") == chosen_distance("frame-gap") == "frame-gap"
    with pytest.raises(InputError, match="--perceptual lpips needs torchvision and AlexNet"):
        chosen_distance("lpips")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "alexnet-owt-7be5be79.pth").touch()
    monkeypatch.setattr(lpips, "find_spec", lambda name: object())
    assert chosen_distance("auto") == chosen_distance("lpips") == "lpips"
    assert chosen_distance("frame-gap") == "frame-gap"


def test_a_run_does_not_change_its_distance_halfway():
    distance = PerceptualDistance("frame-gap", 4, "float32", torch.device("cpu"))
    with pytest.raises(InputError, match="started with --perceptual lpips"):
        distance.load_state_dict({"name": "lpips"})


def test_sharpness_is_1_for_the_video_itself_and_less_for_a_blur():
    video = torch.zeros(1, 3, 3, 16, 16)
    for t in range(3):
        video[0, t, :, 6:8, 4 + t : 6 + t] = 1.0
    blurred = F.avg_pool2d(video.flatten(0, 1), 3, 1, 1).unflatten(0, (1, 3))
    assert moving_sharpness(video, video) == 1
    assert 0.05 < moving_sharpness(blurred, video) < 0.5
    assert moving_sharpness(torch.zeros_like(video), video) == 0
    assert moving_sharpness(video[:, :1], video[:, :1]) == 1  # nothing moves
