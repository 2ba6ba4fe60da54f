"""The scores of chapter 1, on pictures small enough to score by hand."""

import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence
from torch.utils._python_dispatch import TorchDispatchMode
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from video_tokenizer import lpips, metrics
from video_tokenizer.figures import image_grid, save_gif
from video_tokenizer.losses import background_of
from video_tokenizer.training.results import format_table, to_json


@pytest.fixture
def ball_video():
    """One clip (1, 4, 3, 16, 16): a grey wall in rows 0 to 3, and one bright pixel that runs along row 8, two columns a frame."""
    video = torch.zeros(1, 4, 3, 16, 16)
    video[..., 0:4, :] = 0.5
    for frame in range(4):
        video[:, frame, :, 8, 2 + 2 * frame] = 0.8
    return video


@pytest.fixture
def background():
    picture = torch.zeros(3, 16, 16)
    picture[:, 0:4] = 0.5
    return picture


def ball_positions():
    return torch.tensor([[[2.0, 8.0], [4.0, 8.0], [6.0, 8.0], [8.0, 8.0]]])  # (1, 4, 2) as (x, y)


def test_an_error_of_a_tenth_is_twenty_decibels():
    video = torch.full((1, 2, 3, 4, 4), 0.5)
    assert metrics.psnr_db(video + 0.1, video) == pytest.approx(20.0, abs=1e-4)
    assert metrics.psnr_db(video, video) == math.inf


def test_psnr_equals_torchmetrics():
    generator = torch.Generator().manual_seed(0)
    video, prediction = torch.rand(2, 2, 3, 3, 8, 8, generator=generator)
    expected = peak_signal_noise_ratio(prediction, video, data_range=1.0).item()
    assert metrics.psnr_db(prediction, video) == pytest.approx(expected, abs=1e-4)


def test_ssim_equals_torchmetrics():
    generator = torch.Generator().manual_seed(0)
    video = torch.rand(2, 3, 3, 16, 24, generator=generator)
    prediction = (video + 0.2 * torch.rand(video.shape, generator=generator)).clamp(0, 1)
    expected = structural_similarity_index_measure(prediction.flatten(0, 1), video.flatten(0, 1), data_range=1.0)
    assert isinstance(expected, torch.Tensor)
    assert metrics.ssim(prediction, video).item() == pytest.approx(float(expected), abs=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):  # a score does not change with the model's number format
        assert metrics.ssim(prediction, video).item() == pytest.approx(float(expected), abs=1e-5)


def test_ssim_is_computed_exactly_on_a_card_that_rounds_its_products():
    """TF32, which training allows, keeps 10 bits; the variances are differences in the twelfth."""
    asked = []

    class Products(TorchDispatchMode):
        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            asked.extend([torch.get_float32_matmul_precision()] * ("mm" in str(operation)))
            return operation(*args, **(kwargs or {}))

    torch.set_float32_matmul_precision("high")
    try:
        with Products():
            metrics.ssim(torch.rand(1, 1, 3, 16, 16), torch.rand(1, 1, 3, 16, 16))
        assert set(asked) == {"highest"} and torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_a_black_ball_free_video_scores_well_on_psnr_and_badly_on_everything_else(ball_video, background):
    erased = background.expand(1, 4, 3, 16, 16)
    scores = metrics.VideoScores()
    scores.update(erased[:, 1:], ball_video[:, 1:], ball_video[:, :-1], background, ball_positions()[:, 1:])
    result = scores.result()
    # one pixel of 256 is wrong by 0.8: 10 * log10(256 / 0.64) = 26.0 dB
    assert result["psnr_db"] == pytest.approx(26.02, abs=0.01)
    # two pixels moved, the ball's new place (error 0.64) and its old one (error 0): 10 * log10(1 / 0.32) = 4.9 dB
    assert result["moving_psnr_db"] == pytest.approx(4.95, abs=0.01)
    assert result["foreground_recall"] == 0.0
    assert result["object_recall"] == 0.0


def test_a_perfect_reconstruction_scores_one(ball_video, background):
    scores = metrics.VideoScores()
    scores.update(ball_video[:, 1:], ball_video[:, 1:], ball_video[:, :-1], background, ball_positions()[:, 1:])
    result = scores.result()
    assert (result["foreground_recall"], result["object_recall"]) == (1.0, 1.0)
    assert result["ssim"] == pytest.approx(1.0)
    assert result["psnr_db"] == result["moving_psnr_db"] == math.inf


def test_a_second_ball_is_a_ghost_and_the_ball_itself_is_none(ball_video, background):
    prediction = ball_video.clone()
    positions = ball_positions()
    assert metrics.ghosts(prediction, ball_video, background, positions) == (0, 4)
    clip, frame = 0, 2
    column, row = (int(value) for value in positions[clip, frame])
    far = (row + 8) % 16, (column + 8) % 16
    prediction[clip, frame, :, far[0], far[1]] += 0.2  # a quarter of the contrast of the ball: too faint to count
    assert metrics.ghosts(prediction, ball_video, background, positions) == (0, 4)
    prediction[clip, frame, :, far[0], far[1]] += 0.2
    assert metrics.ghosts(prediction, ball_video, background, positions) == (1, 4)
    assert metrics.object_recall(prediction, ball_video, background, positions) == (4, 4)  # which never notices


def test_copying_the_last_frame_fails_exactly_on_the_pixels_that_move(ball_video):
    # per frame two pixels of 256 are wrong by 0.8
    assert metrics.copy_last_psnr_db(ball_video) == pytest.approx(-10 * math.log10(2 * 0.64 / 256), abs=0.01)
    assert metrics.copy_last_moving_psnr_db(ball_video) == pytest.approx(-10 * math.log10(0.64), abs=0.01)


def test_a_pixel_moves_when_one_channel_changes_by_more_than_a_twentieth():
    previous, video = torch.zeros(1, 1, 3, 1, 2), torch.zeros(1, 1, 3, 1, 2)
    video[0, 0, 1, 0, 0] = 0.06
    video[0, 0, :, 0, 1] = 0.04
    assert metrics.pixels_that_moved(video, previous).flatten().tolist() == [True, False]


def test_moving_psnr_of_a_still_video_is_not_a_number():
    still = torch.rand(1, 3, 3, 8, 8)
    assert math.isnan(metrics.moving_psnr_db(still, still, still))


@pytest.mark.parametrize(("brightness", "found"), [(0.41, 3), (0.39, 0)])
def test_half_the_contrast_of_the_ball_decides(ball_video, background, brightness, found):
    drawn = torch.where(ball_video == 0.8, brightness, ball_video)
    recall = metrics.object_recall(drawn[:, 1:], ball_video[:, 1:], background, ball_positions()[:, 1:])
    assert recall == (found, 3)
    assert metrics.foreground_recall(drawn, ball_video, background)[0] == (4 if found else 0)


def test_a_ball_two_pixels_beside_its_place_is_not_found(ball_video, background):
    recall = metrics.object_recall(ball_video[:, :-1], ball_video[:, 1:], background, ball_positions()[:, 1:])
    assert recall == (0, 3)


def test_frames_without_a_ball_are_not_counted(ball_video, background):
    positions = ball_positions()
    positions[0, 0] = math.nan
    assert metrics.object_recall(ball_video, ball_video, background, positions) == (3, 3)


def test_the_temporal_median_forgets_what_moves():
    frames = np.full((9, 4, 4, 3), 51, np.uint8)
    for frame in range(4):
        frames[frame, frame, :] = 255
    assert torch.allclose(background_of(frames), torch.full((3, 4, 4), 0.2))


def test_scores_do_not_depend_on_how_the_set_is_cut_into_batches():
    generator = torch.Generator().manual_seed(1)
    video, prediction = torch.rand(2, 4, 3, 3, 16, 16, generator=generator)
    whole, parts = metrics.VideoScores(), metrics.VideoScores()
    background = video[:, :1] * 0.5
    whole.update(prediction[:, 1:], video[:, 1:], video[:, :-1], background)
    for clip in range(4):
        one = slice(clip, clip + 1)
        parts.update(prediction[one, 1:], video[one, 1:], video[one, :-1], background[one])
    for name, value in whole.result().items():
        assert parts.result()[name] == pytest.approx(value, rel=1e-5, nan_ok=True)


def test_a_report_sets_the_model_beside_its_controls(ball_video, background):
    report = metrics.TokenizerMetrics(codebook_size=8)
    report.update(ball_video, ball_video, torch.tensor([[[0, 1, 2, 3]] * 4]), background, ball_positions())
    result = report.result()
    assert result["object_recall"] == 1.0
    assert result["codes_used"] == 4
    assert result["copy_last_psnr_db"] == pytest.approx(metrics.copy_last_psnr_db(ball_video), abs=1e-3)
    assert report.copy_last.result()["object_recall"] == 0.0
    assert report.background.result()["foreground_recall"] == 0.0


def test_two_codes_used_equally_have_perplexity_two():
    usage = metrics.CodeUsage(4)
    usage.update(torch.tensor([[0, 0], [2, 2]]))
    assert usage.result() == {"codes_used": 2, "perplexity": pytest.approx(2.0)}
    usage.update(torch.tensor([0, 0, 0, 0]))  # now 6 : 2, entropy 0.5623 nats
    assert usage.result()["perplexity"] == pytest.approx(math.exp(0.5623), rel=1e-3)


def test_a_table_has_one_row_per_predictor_and_json_has_no_nan():
    table = format_table({"model": {"psnr_db": 27.25, "codes_used": 12}, "copy last": {"psnr_db": math.nan}})
    assert table.splitlines()[0].split() == ["psnr_db", "codes_used"]
    assert table.splitlines()[2].split() == ["copy", "last", "-", "-"]
    assert to_json({"a": math.nan, "b": [np.float32(0.5), math.inf]}) == '{\n  "a": null,\n  "b": [\n    0.5,\n    null\n  ]\n}\n'


def test_one_pixel_of_a_grid_is_one_crisp_square():
    picture = np.zeros((1, 4, 4, 3), np.uint8)
    picture[0, 2, 1] = (255, 0, 0)
    grid = image_grid([("row", picture)], caption="a caption", scale=3)
    rows, columns = np.nonzero((grid == (255, 0, 0)).all(axis=2))
    assert (len(rows), np.ptp(rows), np.ptp(columns)) == (9, 2, 2)


def test_a_gif_plays_every_frame(tmp_path):
    frames = np.zeros((5, 8, 8, 3), np.uint8)
    for frame in range(5):
        frames[frame, :, frame] = 255
    save_gif(tmp_path / "video.gif", frames, frames_per_second=10, scale=2, captions=[f"frame {frame}" for frame in range(5)])
    with Image.open(tmp_path / "video.gif") as gif:
        assert sum(1 for _ in ImageSequence.Iterator(gif)) == 5
        assert gif.width >= 16


def test_a_ball_of_one_pixel_keeps_its_colour_in_a_gif(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, size=(6, 32, 32, 3)).astype(np.uint8)  # far more than 256 colours
    frames[..., 0] //= 2
    frames[:, 5, 5] = (250, 10, 10)
    save_gif(tmp_path / "noise.gif", frames, scale=1, captions="a line of text")
    with Image.open(tmp_path / "noise.gif") as gif:
        first = np.asarray(gif.convert("RGB")).astype(int)
    assert np.abs(first[5, 5] - (250, 10, 10)).max() < 40
    assert (first[-1, 0] == 255).all()  # the paper under the caption stays white


def test_lpips_is_the_mean_over_frames_of_what_its_network_says(monkeypatch):
    """The network, whose weights are not fetched, is played by the mean absolute difference of each frame."""

    class Difference(torch.nn.Module):
        def forward(self, one, other, normalize):
            assert normalize and one.shape == (6, 3, 4, 4)
            return (one - other).abs().mean(dim=(1, 2, 3), keepdim=True)

    monkeypatch.setattr(lpips, "lpips_network", Difference)
    video = torch.zeros(2, 3, 3, 4, 4)
    drawn = video.clone()
    drawn[0, 1] = 0.6
    assert lpips.lpips_distance(drawn, video) == pytest.approx(0.1)  # 0.6 in one of six frames
