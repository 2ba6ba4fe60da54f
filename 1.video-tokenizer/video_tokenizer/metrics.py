"""How good is a reconstruction, when repeating the previous frame already scores 37 dB?

On Atari, less than 1% of the pixels change between two frames, so plain PSNR mostly measures the background. Every score is
therefore compared with three baselines: the previous frame, the temporal median (which contains no moving object), and a picture
decoded from random tokens. `VideoScores` computes the same six scores for each of them, over any number of batches:

    psnr_db             over all pixels: 10 * log10(1 / mean squared error)
    ssim                structural similarity, mean over frames
    moving_psnr_db      over the pixels that moved in the real video: max-channel |x_t - x_(t-1)| > 0.05
    foreground_recall   of the pixels more than 0.1 from the temporal median: share reconstructed with under half that error
    object_recall       of the frames with a ball: share whose reconstruction shows it with at least half its contrast
    ghost_share         of the frames with a ball: share whose reconstruction shows a second ball, half as bright or more

Videos are float (B, T, C, H, W) in [0, 1]. PSNRs pool the squared error of the whole validation set, then take the logarithm.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from video_tokenizer.data.clips import Clips, to_video
from video_tokenizer.data.training_data import evenly_spaced
from video_tokenizer.losses import FOREGROUND, MOVING, weighted_mse
from video_tokenizer.training.device import autocast, exact_products

OBJECT_THRESHOLD = 0.08
"""a ball with less contrast is invisible even in the real frame and is not counted; area resizing leaves a contrast of 0.13"""

SECOND_BALL = 0.3
"""least light of a second ball, as a share of the ball's: half of its contrast is enough, wherever it lies, a quarter is not"""


def psnr_from_mean_error(mean_squared_error: float) -> float:
    """PSNR in dB of values in [0, 1]. A constant error of 0.1 gives 10 * log10(1 / 0.01) = 20 dB, no error inf, no data NaN."""
    if math.isnan(mean_squared_error):
        return math.nan
    return math.inf if mean_squared_error == 0 else -10.0 * math.log10(mean_squared_error)


def total(values: Tensor) -> float:
    """The sum, added up in float64, which Apple's GPUs do not have."""
    return (values.cpu() if values.device.type == "mps" else values).sum(dtype=torch.float64).item()


def psnr_db(prediction: Tensor, target: Tensor) -> float:
    """One PSNR in dB over all elements of two tensors of the same shape, values in [0, 1]."""
    return psnr_from_mean_error((prediction.float() - target.float()).square().mean().item())


def ssim(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean structural similarity of the frames of two videos (B, T, C, H, W) in [0, 1]; differentiable, 1 if identical.

    Wang et al. 2004: means, variances and covariance under a Gaussian window (sigma 1.5, 11x11) around every pixel. The result
    equals that of torchmetrics (a test compares them). Applying the window as two banded matrices is many times faster on a CPU.
    """
    rows, columns = (gaussian_windows(length).to(target.device) for length in target.shape[-2:])  # (H, H), (W, W)

    def blur(video: Tensor) -> Tensor:
        return rows @ video @ columns.T  # (B, T, C, H, W)

    x, y = prediction.float(), target.float()
    # the variances are small differences of large numbers
    with torch.autocast(target.device.type, enabled=False), exact_products():
        mean_x, mean_y = blur(x), blur(y)
        variance_x, variance_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
        covariance = blur(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + 0.01**2) / (mean_x**2 + mean_y**2 + 0.01**2)
    structure = (2 * covariance + 0.03**2) / (variance_x + variance_y + 0.03**2)
    return (luminance * structure).mean()


def gaussian_windows(length: int, size: int = 11, sigma: float = 1.5) -> Tensor:
    """(length, length): row i is a Gaussian around position i that sums to 1; weights beyond an edge are reflected back."""
    window = torch.exp(-0.5 * ((torch.arange(size) - size // 2) / sigma) ** 2)
    places = (torch.arange(length)[:, None] + torch.arange(size) - size // 2).abs()  # (length, size)
    places = (length - 1 - (length - 1 - places).abs()).clamp(0, length - 1)
    return torch.zeros(length, length).scatter_add_(1, places, (window / window.sum()).expand(length, size))


def largest_channel_change(video: Tensor, reference: Tensor) -> Tensor:
    """Largest absolute difference over the channels of each pixel.

    video: (B, T, C, H, W); reference broadcasts to it. Returns (B, T, H, W).
    """
    return (video - reference).abs().amax(dim=-3)


def pixels_that_moved(video: Tensor, previous: Tensor) -> Tensor:
    """True where the real video changes.

    video, previous: (B, T, C, H, W), where previous[:, t] is the real frame before video[:, t]. Returns bool (B, T, H, W).
    """
    return largest_channel_change(video, previous) > MOVING


def moving_psnr_db(prediction: Tensor, video: Tensor, previous: Tensor) -> float:
    """PSNR in dB over the pixels that moved in the real video; NaN if nothing moved. All arguments: (B, T, C, H, W)."""
    errors = (prediction - video).square().mean(dim=-3)  # (B, T, H, W)
    return psnr_from_mean_error(errors[pixels_that_moved(video, previous)].mean().item())


def copy_last_psnr_db(video: Tensor) -> float:
    """The score of repeating the previous frame, over frames 1 to T-1. video: (B, T, C, H, W)."""
    return psnr_db(video[:, :-1], video[:, 1:])


def copy_last_moving_psnr_db(video: Tensor) -> float:
    """The score of repeating the previous frame, over the pixels that moved. video: (B, T, C, H, W)."""
    return moving_psnr_db(video[:, :-1], video[:, 1:], video[:, :-1])


def foreground_recall(prediction: Tensor, video: Tensor, background: Tensor) -> tuple[int, int]:
    """(foreground pixels whose error is less than half their distance from the background, foreground pixels).

    prediction, video: (B, T, C, H, W); background: (C, H, W) or (B, 1, C, H, W), the temporal median (`losses.background_of`). A
    pixel of 0.9 on a background of 0.5 counts if the prediction lies strictly between 0.7 and 1.1 in the worst channel.
    """
    difference = largest_channel_change(video, background)  # (B, T, H, W)
    foreground = difference > FOREGROUND
    reconstructed = largest_channel_change(prediction, video) < 0.5 * difference
    return int((reconstructed & foreground).sum()), int(foreground.sum())


def object_recall(
    prediction: Tensor, video: Tensor, background: Tensor, positions: Tensor, radius: int = 1, ring: int = 2
) -> tuple[int, int]:
    """(frames whose prediction shows the object with at least half its contrast, frames that show it).

    prediction, video: (B, T, C, H, W); background: the scene behind the object, which broadcasts to video.
    positions: float (B, T, 2), the center of the object as (x, y) in pixels, NaN where it is absent. (5, 3) is the center of the
    pixel in row 3, column 5.

    Consider the (2 * radius + 1)^2 pixels around the position. There, the real frame minus the background is the pattern r, and
    the prediction minus the background is d. The contrast of the predicted object is the least-squares factor <d, r> / <r, r>: 1
    for a perfect object, 0 for none. An offset that also covers the surrounding `ring` of pixels is not part of the object, so
    the median error around the position is subtracted from d.
    """
    background = background.expand_as(video)
    found = visible = 0
    for clip, frame in torch.isfinite(positions).all(dim=-1).nonzero().tolist():
        column, row = (round(value) for value in positions[clip, frame].tolist())
        near, around = (window(row, column, reach, video.shape[-2:]) for reach in (radius, radius + ring))
        pattern = (video[clip, frame] - background[clip, frame])[near]  # (C, rows, columns)
        if pattern.numel() == 0 or pattern.abs().amax() < OBJECT_THRESHOLD:
            continue  # outside the picture, or the same color as the background
        error = prediction[clip, frame] - video[clip, frame]  # (C, H, W)
        error_around = error[around].flatten(1).median(dim=1).values  # (C,)
        added = pattern + error[near] - error_around[:, None, None]
        visible += 1
        found += bool((added * pattern).sum() >= 0.5 * pattern.square().sum())
    return found, visible


def ghosts(prediction: Tensor, video: Tensor, background: Tensor, positions: Tensor) -> tuple[int, int]:
    """(frames whose prediction shows a second ball, frames that show the object).

    The arguments are those of `object_recall`. That function asks whether the object is there; this one asks whether it appears
    twice. A second ball is a spot

        where nothing is    the 7x7 pixels around it have a single color in the real frame, whose ball is first erased
        like the ball       of its color, with at least 0.3 of its light, and at most twice its light in those 7x7 pixels

    Light is the contrast summed over 2x2 pixels: between two pixels the same ball has half the contrast in each. So a second ball
    of half the contrast counts, and one of a quarter does not. A brick that is long gone, or a paddle drawn at its old place, has
    more light than two balls. The ball's own light is the median over the clip, as it differs in front of a brick.
    """
    background = background.expand_as(video)
    found = visible = 0
    for predicted, real, scene, places in zip(prediction, video, background, positions, strict=True):  # (T, C, H, W), (T, 2)
        frames, balls, empty, added = [], [], real.clone(), predicted - real
        for frame in torch.isfinite(places).all(dim=-1).nonzero().flatten().tolist():
            column, row = (round(value) for value in places[frame].tolist())
            near, own = (window(row, column, reach, real.shape[-2:]) for reach in (1, 2))
            pattern = (real[frame] - scene[frame])[near]
            if pattern.numel() == 0 or pattern.abs().amax() < OBJECT_THRESHOLD:
                continue
            frames.append(frame)
            lights = light(pattern).flatten(1)  # (C, places)
            balls.append(lights[:, lights.norm(dim=0).argmax()])  # (C,)
            empty[frame][own], added[frame][own] = scene[frame][own], 0.0
        if frames:
            ball = torch.stack(balls).median(dim=0).values  # (C,)
            found += int(second_balls(added[frames], empty[frames], ball).sum())
            visible += len(frames)
    return found, visible


def light(contrast: Tensor) -> Tensor:
    """The contrast summed over the 2x2 pixels above and to the left of each pixel. contrast: (..., H, W). Same shape."""
    return 4 * F.avg_pool2d(F.pad(contrast, (1, 0, 1, 0)), 2, stride=1)


def second_balls(added: Tensor, empty: Tensor, ball: Tensor) -> Tensor:
    """bool (F,): frames with a spot like the ball. added: (F, C, H, W), what was drawn and is not there; empty: (F, C, H, W), the
    real frames without ball; ball: (C,) its light."""
    down, right = empty.diff(dim=-2).abs().amax(dim=1), empty.diff(dim=-1).abs().amax(dim=1)  # (F, H-1, W), (F, H, W-1)
    edges = torch.maximum(F.max_pool2d(down, (6, 7), 1, 3), F.max_pool2d(right, (7, 6), 1, 3))  # (F, H, W), the largest in 7x7
    strength = ball.norm()
    color = (ball / strength)[:, None, None]  # (C, 1, 1)
    drawn = light(added)  # (F, C, H, W)
    along = (drawn * color).sum(dim=1)  # (F, H, W)
    same_color = drawn.square().sum(dim=1) <= 1.25 * along.square()  # tangent of the angle between the colors at most 0.5
    around = 49 * F.avg_pool2d((added * color).sum(dim=1).clamp(min=0.0), 7, 1, 3)  # (F, H, W)
    brightest = along >= F.max_pool2d(along, 5, 1, 2)  # not the rim of something larger
    spots = (edges < 0.02) & same_color & brightest & (along >= SECOND_BALL * strength) & (around <= 2 * strength)
    return spots.flatten(1).any(dim=1)


def window(row: int, column: int, reach: int, size: Sequence[int]) -> tuple[slice, slice, slice]:
    """Index of the pixels of a (C, H, W) picture at most `reach` rows and columns away, clipped to size (H, W)."""
    rows, columns = (
        slice(max(center - reach, 0), max(min(center + reach + 1, side), 0))
        for center, side in zip((row, column), size, strict=True)
    )
    return slice(None), rows, columns


class VideoScores:
    """The six scores of one predictor (a model or a baseline) over any number of batches.

    A score is NaN if `update` never received the arguments that it needs.
    """

    def __init__(self) -> None:
        self.squared_error = self.moving_error = self.similarity = 0.0
        self.num_frames = self.num_values = self.num_moving = 0
        self.foreground_found = self.foreground = self.objects_found = self.objects = self.ghosts = 0

    def update(
        self,
        prediction: Tensor,
        video: Tensor,
        previous: Tensor,
        background: Tensor | None = None,
        positions: Tensor | None = None,
        object_background: Tensor | None = None,
    ) -> None:
        """Add a batch.

        prediction, video, previous: (B, T, C, H, W), the predicted frames, the real frames, and the real frame before each.
        background: the temporal median of the recording, which broadcasts to video; needed for foreground_recall.
        positions: (B, T, 2) as in `object_recall`; needed for object_recall and ghost_share.
        object_background: the scene around that moment, for these two scores; default: background.
        """
        prediction, video = prediction.float(), video.float()
        errors = (prediction - video).square().mean(dim=-3)  # (B, T, H, W)
        moving = pixels_that_moved(video, previous)
        self.squared_error += total(errors)
        self.num_values += errors.numel()
        self.moving_error += total(errors[moving])
        self.num_moving += int(moving.sum())
        frames = video.shape[0] * video.shape[1]
        self.similarity += ssim(prediction, video).item() * frames
        self.num_frames += frames
        if background is not None:
            found, foreground = foreground_recall(prediction, video, background)
            self.foreground_found, self.foreground = self.foreground_found + found, self.foreground + foreground
        behind = background if object_background is None else object_background
        if positions is not None and behind is not None:
            found, visible = object_recall(prediction, video, behind, positions)
            self.objects_found, self.objects = self.objects_found + found, self.objects + visible
            self.ghosts += ghosts(prediction, video, behind, positions)[0]

    def result(self) -> dict[str, float]:
        """The six scores of the module's table, by name."""
        return {
            "psnr_db": psnr_from_mean_error(share(self.squared_error, self.num_values)),
            "ssim": share(self.similarity, self.num_frames),
            "moving_psnr_db": psnr_from_mean_error(share(self.moving_error, self.num_moving)),
            "foreground_recall": share(self.foreground_found, self.foreground),
            "object_recall": share(self.objects_found, self.objects),
            "ghost_share": share(self.ghosts, self.objects),
        }


class CodeUsage:
    """How many of the codes are used, and how evenly, over any number of batches."""

    def __init__(self, num_codes: int) -> None:
        self.counts = torch.zeros(num_codes, dtype=torch.int64)

    def update(self, indices: Tensor) -> None:
        """indices: int64 of any shape in [0, num_codes)."""
        self.counts += torch.bincount(indices.flatten().cpu(), minlength=len(self.counts))

    def result(self) -> dict[str, float]:
        """codes_used and perplexity. Four codes that occur 50, 50, 0 and 0 times: 2 are used, and the perplexity is 2.0."""
        return {"codes_used": int((self.counts > 0).sum()), "perplexity": perplexity(self.counts)}


def perplexity(counts: Tensor) -> float:
    """exp(entropy in nats) of a histogram: the number of equally frequent values with the same entropy. NaN for an empty one.

    counts: (K,).
    """
    if counts.sum() == 0:
        return math.nan
    frequencies = counts[counts > 0].double() / counts.sum()
    return math.exp(-(frequencies * frequencies.log()).sum().item())


def share(part: float, whole: float) -> float:
    """part / whole, or NaN if whole is 0."""
    return part / whole if whole else math.nan


class TokenizerMetrics:
    """The scores of a tokenizer, of its baselines, and its code usage, over any number of batches of clips.

    The first frame of a clip is not scored, because it has no previous frame to copy. Clips that overlap by one frame therefore
    score each frame once.
    """

    def __init__(self, codebook_size: int) -> None:
        self.model, self.copy_last, self.background = VideoScores(), VideoScores(), VideoScores()
        self.usage = CodeUsage(codebook_size)

    def update(
        self,
        reconstruction: Tensor,
        video: Tensor,
        indices: Tensor,
        background: Tensor,
        positions: Tensor | None = None,
        object_background: Tensor | None = None,
    ) -> None:
        """Add a batch of clips.

        reconstruction, video: (B, T, C, H, W) with T >= 2; indices: (B, T, N); background: (C, H, W) or (B, 1, C, H, W), the
        temporal median; positions, object_background: as in `VideoScores.update`, for the T frames of each clip.
        """
        scored, previous = video[:, 1:], video[:, :-1]
        behind = background if object_background is None else object_background
        details = {
            "background": background,
            "positions": None if positions is None else positions[:, 1:],
            "object_background": behind[:, 1:] if behind.dim() == 5 and behind.shape[1] == video.shape[1] else behind,
        }
        self.model.update(reconstruction[:, 1:], scored, previous, **details)
        self.copy_last.update(previous, scored, previous, **details)
        self.background.update(background.expand_as(scored), scored, previous, **details)
        self.usage.update(indices)

    def result(self) -> dict[str, float]:
        """The model's six scores, codes_used and perplexity, copy_last_psnr_db and copy_last_moving_psnr_db."""
        copied = self.copy_last.result()
        return {
            **self.model.result(),
            **self.usage.result(),
            "copy_last_psnr_db": copied["psnr_db"],
            "copy_last_moving_psnr_db": copied["moving_psnr_db"],
        }


@torch.no_grad()
def validate(tokenizer: Any, clips: Clips, background: Tensor, config: Any, device: torch.device) -> dict[str, float]:
    """Score a tokenizer during training, always on the same clips, evenly spaced over the validation set.

    weighted_error is the reconstruction term of the loss; training keeps the weights for which it is lowest.
    """
    tokenizer.eval()
    metrics, error = TokenizerMetrics(tokenizer.codebook_size), 0.0
    chosen = evenly_spaced(len(clips), config.validation_batches * config.batch_size)
    for first in range(0, len(chosen), config.batch_size):
        video = to_video(clips.__getitems__(chosen[first : first + config.batch_size])["frames"], device)  # (B, T, 3, H, W)
        with autocast(device, config.precision):
            output = tokenizer(video)
        metrics.update(output.reconstruction, video, output.indices, background)
        weights = (config.foreground_weight, config.moving_weight)
        error += float(weighted_mse(output.reconstruction, video, background, *weights)) * len(video)
    return metrics.result() | {"weighted_error": error / len(chosen)}
