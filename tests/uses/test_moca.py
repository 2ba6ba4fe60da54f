"""MoCA: each box of its checklist, with numbers small enough to check by hand."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from einops import rearrange
from script_runner import call
from structure_checks import REPOSITORY
from torch import Tensor

from uses.moca.conditions import IMAGE, MOTION, TEXT, Conditions, draw_given, flow_pictures, mean_magnitude
from uses.moca.config import MocaConfig
from uses.moca.diffusion import NUM_LEVELS, denoise, guide, signal_and_noise, velocity
from uses.moca.digits import (
    BACKGROUNDS,
    COLORS,
    NUM_FRAMES,
    SIZE,
    VOCABULARY,
    Scenes,
    captions,
    changed,
    draw_scenes,
    edit_frames,
    film,
    flow,
    has_room,
    read,
)
from uses.moca.edit_clips import Edit, clip_scores, edited_clips, make_edit
from uses.moca.judge import edit_scores
from uses.moca.model import GRID, Animator, MoCA
from uses.moca.pong import PADDLE_FROM, Palette, cut_clips, find_cover, look
from uses.moca.pong import clip_scores as pong_scores
from uses.moca.pong import films as pong_films
from uses.moca.train import films, open_moca, told
from uses.moca.vae import LATENTS, FrameVAE
from video_tokenizer.data.clip_store import ClipStoreWriter, open_clip_store
from video_tokenizer.data.clips import to_frames
from video_tokenizer.data.video_files import LINEAR_LIGHT, SRGB_VALUES
from video_tokenizer.training.results import read_json

SCRIPT, PONG = (REPOSITORY / "4.inference/uses/moca" / name for name in ("edit_clips.py", "edit_pong.py"))
SHAPE = (NUM_FRAMES, LATENTS, GRID, GRID)


def tiny(folder: Path) -> tuple[object, ...]:
    """Flags of trainings that take no time."""
    steps = ("--vae-steps", 2, "--num-steps", 2, "--judge-steps", 2, "--denoising-steps", 1)
    return "--output", folder, *steps, "--batch-size", 2, "--num-films", 2, "--num-clips", 8, "--device", "cpu"


def scene(digit: int = 7, color: str = "red", background: str = "gray", start=(16, 10), moves=(-1, 0), is_camera=False) -> Scenes:
    """One clip."""
    names = np.array([digit]), np.array([[*COLORS].index(color)]), np.array([[*BACKGROUNDS].index(background)])
    return Scenes(*names, np.array([start], float), np.array([moves], float), np.array([is_camera]))


@pytest.fixture(scope="module")
def moca() -> MoCA:
    """Untrained, but with no layer at zero, so that every condition has an effect."""
    torch.manual_seed(0)
    model = MoCA(FrameVAE(width=8), Animator(embed_dim=24, num_blocks=2, num_heads=2))
    for parameter in model.animator.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return model.eval()


def velocity_of(moca: MoCA, conditions: Conditions, level: float = 500.0, noisy: Tensor | None = None) -> Tensor:
    """What the animator answers to the same noise."""
    noise = torch.randn(len(conditions.words), *SHAPE, generator=torch.Generator().manual_seed(1)) if noisy is None else noisy
    with torch.no_grad():
        return moca.animator(noise, torch.full((len(noise),), level), conditions)


def named(moca: MoCA, what: Scenes) -> Conditions:
    """All conditions of a clip, its direction in the caption."""
    return told(moca, films(what, np.ones(len(what), bool)))[1]


# ---- the clips ----------------------------------------------------------------------------------------------------------


def test_a_caption_names_color_digit_direction_and_background():
    words = captions(scene(moves=(-1, -1)), np.array([True]))[0]
    assert " ".join(VOCABULARY[word] for word in words) == "red seven moves up left on gray"
    words = captions(scene(moves=(-1, -1)), np.array([False]))[0]
    assert " ".join(VOCABULARY[word] for word in words).split() == ["red", "seven", "on", "gray"]


def test_a_digit_stays_inside_and_is_read_off_the_picture():
    scenes = draw_scenes(100, np.random.default_rng(0))
    reading = read(film(scenes).reshape(-1, SIZE, SIZE, 3))
    for name in ("digit", "color", "background"):
        assert (getattr(reading, name) == np.repeat(getattr(scenes, name), NUM_FRAMES)).all(), name
    assert reading.found.all() and np.abs(reading.corner - scenes.corners.reshape(-1, 2)).max() < 0.3


# ---- the checklist ------------------------------------------------------------------------------------------------------


def test_mo1_the_editor_changes_one_frame_at_the_place_of_the_old_digit():
    source = scene()
    edited = read(edit_frames(film(source)[:, 0], scene(digit=3, color="blue", background="black")))
    assert (edited.digit[0], [*COLORS][edited.color[0]], [*BACKGROUNDS][edited.background[0]]) == (3, "blue", "black")
    assert np.abs(edited.corner - source.start).max() < 0.3


@pytest.mark.parametrize(
    "kind, names", {"color": ["color"], "several": ["digit", "color", "background"], "motion": ["velocity"]}.items()
)
def test_mo1_an_edit_changes_what_it_says_and_nothing_else(kind, names):
    source = draw_scenes(20, np.random.default_rng(0))
    target = changed(source, kind, np.random.default_rng(1))
    for name in Scenes.__dataclass_fields__:
        differs = getattr(source, name) != getattr(target, name)
        assert differs.all() if name in names else not differs.any(), name


def test_mo2_and_mo3_first_frame_and_flow_stand_beside_the_noise_in_every_step(moca):
    """12 channels: 4 of the noisy clip, 4 of the first frame in all eight frames alike, 4 of the flow, by the same encoder.

    A token holds 2x2 places, so 48 numbers, 16 of each.
    """
    what, seen = scene(), []
    conditions = named(moca, what)
    hook = moca.animator.to_tokens.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    moca.animate(conditions, (1.0, 1.0, 1.0), 3, torch.randn(1, *SHAPE))
    hook.remove()
    assert len(seen) == 3 * 4 and seen[0].shape == (1, NUM_FRAMES, 16, 48)
    video = torch.from_numpy(film(what)).permute(0, 1, 4, 2, 3) / 255
    pictures = torch.from_numpy(flow_pictures(flow(what))).permute(0, 1, 4, 2, 3) / 255
    first, motion = (
        rearrange(moca.vae.encode(part), "b t c (h p) (w q) -> b t (h w) (c p q)", p=2, q=2) for part in (video[:, :1], pictures)
    )
    for number, tokens in enumerate(seen):
        _, image, flow_latents = tokens.split(16, dim=-1)
        assert torch.allclose(image, first.expand_as(image) if number % 4 else torch.zeros(()), atol=1e-5)
        assert torch.allclose(flow_latents, motion if number % 4 == 3 else torch.zeros(()), atol=1e-5)


def test_mo3_two_speeds_have_one_picture_and_two_magnitudes(moca):
    slow, fast = scene(moves=(-1, 0), is_camera=True), scene(moves=(-2, 0), is_camera=True)
    assert (flow_pictures(flow(slow)) == flow_pictures(flow(fast))).all()
    assert [mean_magnitude(flow(one)).item() for one in (slow, fast)] == [1, 2]
    told_slow = named(moca, slow)
    told_fast = replace(told_slow, magnitude=2 * told_slow.magnitude)
    assert not torch.allclose(velocity_of(moca, told_slow), velocity_of(moca, told_fast))
    deaf = MoCA(moca.vae, Animator(embed_dim=24, num_blocks=2, num_heads=2, has_magnitude=False)).eval()
    deaf.animator.load_state_dict(moca.animator.state_dict())  # in which the magnitude has an effect
    assert torch.equal(velocity_of(deaf, told_slow), velocity_of(deaf, told_fast))


def test_mo3_flow_pictures_show_directions_as_hues_and_rest_as_white():
    field = np.zeros((2, 1, 4))
    field[0, 0, 1], field[0, 0, 2], field[1, 0, 3] = 2, -2, 1  # rests, right, left, and down at half the speed
    assert flow_pictures(field).tolist() == [[[255, 255, 255], [255, 0, 0], [0, 255, 255], [191, 255, 128]]]


def test_mo3_the_first_of_eight_flows_is_zero_and_the_others_lie_on_the_digit_of_the_frame_before():
    eight = scene(digit=8, moves=(-1, 0))
    field = flow(eight)[0]  # (T, 2, H, W)
    assert not field[0].any()
    assert set(np.unique(field[1:, 0])) == {-1, 0} and not field[1:, 1].any()
    columns = [np.flatnonzero(part[0].any(axis=0)).mean() + 0.5 for part in field[1:]]
    assert np.abs(columns - read(film(eight)[0]).center[:-1, 0]).max() < 0.1


def test_mo4_words_reach_every_place_and_frames_see_each_other_both_ways(moca):
    left, right = (named(moca, scene(moves=(x, 0))) for x in (-1, 1))
    other_words = replace(left, words=right.words)
    assert ((velocity_of(moca, left) - velocity_of(moca, other_words)).abs().amax(dim=2) > 0).all()
    noise = torch.randn(1, *SHAPE)
    for changed_frame, seen_in in ((7, 0), (0, 7)):
        other = noise.clone()
        other[:, changed_frame] += 1
        difference = velocity_of(moca, left, noisy=noise) - velocity_of(moca, left, noisy=other)
        assert difference[:, seen_in].abs().max() > 0


def test_mo5_what_is_not_given_has_no_effect(moca):
    first, second = named(moca, scene()), named(moca, scene(2, "blue", "black", (3, 3), (2, 1), True))
    for condition, names in {IMAGE: ["image"], TEXT: ["words"], MOTION: ["motion", "magnitude"]}.items():
        mixed = replace(first, **{name: getattr(second, name) for name in names})
        given = first.given.clone()
        given[:, condition] = False
        assert not torch.allclose(velocity_of(moca, first), velocity_of(moca, mixed))
        assert torch.equal(*(velocity_of(moca, replace(one, given=given)) for one in (first, mixed)))


def test_mo5_training_leaves_out_single_conditions_pairs_and_all_three():
    """Motion is missing in 30 % of the examples, and in half of the other 70: 65 %. All three: 10 % times one half."""
    torch.manual_seed(0)
    given = draw_given(20_000)
    assert (~given).float().mean(dim=0).tolist() == pytest.approx([0.3, 0.3, 0.65], abs=0.02)
    share = {tuple(row.tolist()): (given == row).all(dim=1).float().mean().item() for row in given.unique(dim=0)}
    assert len(share) == 8
    assert share[False, False, False] == pytest.approx(0.05, abs=0.01)
    assert share[True, True, True] == pytest.approx(0.2, abs=0.02)


def test_mo6_guidance_adds_image_then_text_then_motion():
    """v() = 1, v(I) = 3, v(T, I) = 7 and v(M, T, I) = 8 under scales 2, 3 and 4: 1 + 2 * 2 + 3 * 4 + 4 * 1 = 21."""
    answers = {(False, False, False): 1, (True, False, False): 3, (True, True, False): 7, (True, True, True): 8}
    asked = []

    def predict(given):
        asked.append(given)
        return torch.tensor(float(answers[given]))

    assert guide(predict, (2, 3, 4)) == 21
    assert asked == list(answers)
    asked.clear()
    assert guide(predict, (2, 3, 0)) == 17 and asked == list(answers)[:3]  # a motion edit never asks about the flow
    assert guide(predict, (1, 1, 1)) == 8  # all scales 1: the network with everything given


def test_mo7_the_last_level_is_pure_noise_and_the_first_nearly_clean():
    alphas, sigmas = signal_and_noise()
    assert (alphas[0], sigmas[0]) == (1, 0) and (alphas[NUM_LEVELS], sigmas[NUM_LEVELS]) == (0, 1)
    assert torch.allclose(alphas.square() + sigmas.square(), torch.ones(()))
    assert (alphas.diff() < 0).all() and alphas[1].item() == pytest.approx((1 - 0.00085) ** 0.5, abs=1e-6)


@pytest.mark.parametrize("first_level", [NUM_LEVELS, 600])
def test_mo7_ddim_with_a_perfect_network_finds_the_clip(first_level):
    alphas, sigmas = signal_and_noise()
    clean, noise, levels = torch.randn(2, 3), torch.randn(2, 3), []

    def perfect(noisy: Tensor, level: int) -> Tensor:
        levels.append(level)
        left = (noisy - alphas[level] * clean) / sigmas[level]
        return velocity(clean, left, alphas[level], sigmas[level])

    start = alphas[first_level] * clean + sigmas[first_level] * noise
    assert torch.allclose(denoise(perfect, start, 4, first_level), clean, atol=1e-5)
    assert levels == [first_level * part // 4 for part in (4, 3, 2, 1)]


def test_mo7_at_the_last_level_the_target_is_the_clip_and_no_noise():
    alphas, sigmas = signal_and_noise()
    assert velocity(torch.tensor(3.0), torch.tensor(9.0), alphas[-1], sigmas[-1]) == -3


# ---- the command --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What the command writes after trainings of two steps."""
    folder = tmp_path_factory.mktemp("moca")
    assert (
        call(SCRIPT, "--json", folder / "moca.json", "--picture", folder / "moca.png", "--without-magnitude", *tiny(folder)) == 0
    )
    return folder


def test_mo8_every_kind_of_edit_is_scored_beside_its_baselines(folder):
    edited = read_json(folder / "moca.json")
    assert (folder / "moca.png").stat().st_size > 1_000
    for kind in ("color", "digit", "background", "several", "motion"):
        table = edited[kind]
        assert table.keys() == {"with_flow", "without_flow", "sdedit", "standing_still", "copy_source", "target"}
        assert (
            table["target"]["appearance"] == 1 and table["target"]["track_error_px"] < 0.2 and table["target"]["direction"] == 1
        )
        assert table["copy_source"]["m_sim"] == pytest.approx(1) and table["copy_source"]["m_dir"] == pytest.approx(0, abs=1e-6)
        assert table["copy_source"]["appearance"] == (kind == "motion") and table["copy_source"]["direction"] == (
            kind != "motion"
        )
        assert table["standing_still"]["direction"] == 0
    assert edited["magnitude"].keys() == {"with_magnitude", "without_magnitude"}
    spatial = [edited[kind]["with_flow"]["track_error_px"] for kind in ("color", "digit", "background", "several")]
    assert edited["spatial"]["with_flow"]["track_error_px"] == pytest.approx(np.mean(spatial))


def test_mo8_the_directional_score_is_one_for_the_edit_that_was_asked_for():
    """Captions go from (1, 0) to (0, 1). Of the clips, all at (1, 0), one goes there too, one half way, and one stays."""
    east, north, between = (torch.tensor([place]) for place in ([1.0, 0.0], [0.0, 1.0], [0.5**0.5, 0.5**0.5]))
    done, partly, copied = (edit_scores(east, clip, east, north) for clip in (north, between, east))
    assert (done["m_dir"], done["m_sim"], done["m_geo"]) == (pytest.approx(1), 0, 0)
    assert partly["m_dir"] == pytest.approx(np.cos(np.pi / 8), abs=1e-5)
    assert partly["m_geo"] == pytest.approx((partly["m_sim"] * partly["m_dir"]) ** 0.5) and partly["m_sim"] == pytest.approx(
        0.5**0.5
    )
    assert (copied["m_dir"], copied["m_sim"]) == (0, 1)


def test_mo8_a_track_is_measured_from_where_it_begins():
    """Three pixels to the right a frame instead of one: errors of 2, 4, ... 14 pixels, 8 on average, and the right direction."""
    target, fast = scene(start=(1, 5), moves=(1, 0)), scene(start=(2, 8), moves=(3, 0))
    scores = clip_scores(film(fast), target)
    assert scores["track_error_px"] == pytest.approx(8, abs=0.2) and scores["direction"] == 1 and scores["appearance"] == 1
    assert scores["track_error_digit_px"] == scores["track_error_px"] and np.isnan(scores["track_error_camera_px"])
    assert clip_scores(film(scene(start=(20, 5), moves=(-1, 0))), target)["direction"] == 0


def test_the_animator_gets_nothing_of_the_source_but_its_flow(moca):
    """Two sources that differ in everything but motion, and the same edited frame: the same clip."""
    sources = scene(7, "red", "gray", is_camera=True), scene(3, "blue", "black", is_camera=True)
    target = scene(8, "pink", "brown", is_camera=True)
    edits = [Edit(one, target, film(target)[:, 0], captions(target, np.array([False]))) for one in sources]
    config = MocaConfig(denoising_steps=2, device="cpu")
    for keeps_flow in (True, False):
        first, second = (edited_clips(moca, edit, config, keeps_flow) for edit in edits)
        assert (first == second).all()


def test_a_motion_edit_turns_round_and_only_then_the_caption_tells_the_direction():
    for kind in ("color", "motion"):
        edit = make_edit(kind, 20, 0)
        assert has_room(edit.source).all() and has_room(edit.target).all()
        assert ((edit.words == VOCABULARY.index("moves")).any(axis=1) == (kind == "motion")).all()
        assert (edit.target.velocity == (-1 if kind == "motion" else 1) * edit.source.velocity).all()


def test_models_made_with_other_flags_are_not_used_again(folder, capsys):
    made = {path: path.stat().st_mtime_ns for path in folder.glob("*.pt")}
    assert call(SCRIPT, *tiny(folder), "--vae-steps", 3) == 2
    assert "was made with vae_steps 2, not 3" in capsys.readouterr().err
    assert made == {path: path.stat().st_mtime_ns for path in folder.glob("*.pt")} and len(made) == 5


def test_the_autoencoder_of_digits_draws_scenes_and_nothing_between_them(tmp_path, monkeypatch):
    seen, loss = [], FrameVAE.loss
    monkeypatch.setattr(FrameVAE, "loss", lambda self, pictures: seen.append(pictures) or loss(self, pictures))
    open_moca(MocaConfig(output=str(tmp_path), vae_steps=3, num_steps=1, num_films=2, batch_size=4, device="cpu"))
    rng = np.random.default_rng((0, 1))
    for pictures in seen:
        drawn = film(draw_scenes(2, rng))[:, ::2]  # (2, 4, H, W, 3)
        assert (to_frames(pictures.unflatten(0, (2, 7))[:, :4]) == drawn).all()
    assert len(seen) == 3


@pytest.mark.parametrize(("flag", "value"), [("--seed", 2**64), ("--picture", "x"), ("--picture", "x.jpg")])
def test_flags_that_would_fail_at_the_end_are_refused_at_the_beginning(tmp_path, capsys, flag, value):
    assert call(SCRIPT, "--output", tmp_path / "moca", flag, value) == 2
    assert f"{flag} {value}" in capsys.readouterr().err and not (tmp_path / "moca").exists()


# ---- Pong ---------------------------------------------------------------------------------------------------------------


def a_game_of_pong(folder: Path, env_id: str = "ALE/Pong-v5") -> Path:
    """Two games of 9 frames: a ball of 2x2 pixels flies left and down, and our paddle of 2x5 goes up."""
    with ClipStoreWriter(folder, (64, 64), {"env_id": env_id, "linear_light": True}) as writer:
        for begin in (20, 24):
            frames = np.full((9, 64, 64, 3), (144, 72, 17), np.uint8)
            for t, frame in enumerate(frames):
                frame[begin + t : begin + t + 2, 50 - 2 * t : 52 - 2 * t] = 236
                frame[36 - t : 41 - t, 56:58] = (92, 186, 92)
            writer.add_episode(frames)
    return folder


def test_a_clip_of_pong_keeps_its_motion_in_other_colors(tmp_path):
    """A pixel with half of a ball's light is half ball. The paddle goes from row 36 to 29, and the ball from column 50 to 36."""
    field, ball = LINEAR_LIGHT[np.array([(144, 72, 17), (236, 236, 236)])]
    half = SRGB_VALUES[np.round((field + ball) / 2 * (len(SRGB_VALUES) - 1)).astype(int)]
    assert find_cover(half) == pytest.approx([0.5, 0], abs=0.01)
    clips = cut_clips(open_clip_store(a_game_of_pong(tmp_path / "pong")), 2, np.random.default_rng(0), is_training=True)
    shown = look(clips.video)
    assert len(clips.video) == 2 and (shown.ball[:, -1] - shown.ball[:, 0] == [-14, 7]).all()
    assert (shown.paddle[:, -1] - shown.paddle[:, 0] == -7).all()
    assert not clips.flow[:, 0].any()
    x, y = shown.ball[0, 0].astype(int)
    assert clips.flow[0, 1, :, y, x].tolist() == [-2, 1] and clips.flow[0, 1, :, y, 0].tolist() == [0, 0]
    flat = np.broadcast_to(clips.video[:, :, :1, :1], clips.video.shape)
    assert (look(flat).colors[:2] == -1).all() and np.isnan(look(flat).paddle).all()
    no_paddle = look(np.where(np.arange(SIZE)[:, None] < PADDLE_FROM, clips.video, flat)).colors
    assert (no_paddle[0] >= 0).all() and (no_paddle[1] == -1).all()
    palette = Palette(np.array([0, 3]), np.array([1, 5]), np.array([2, 0]))
    painted = pong_films(clips, palette)
    right = {"ball_color": 1, "paddle_color": 1, "field_color": 1, "ball_error_px": 0, "paddle_error_px": 0}
    assert pong_scores(painted.video, clips, palette) == pytest.approx(right, abs=0.01)
    sentences = [" ".join(VOCABULARY[word] for word in words).strip() for words in painted.words]
    assert sentences == ["red on brown", "yellow on black"]


def test_clips_of_pong_are_edited_beside_their_baselines(tmp_path, capsys):
    flags = "--output", tmp_path / "moca", "--vae-steps", 2, "--num-steps", 2, "--denoising-steps", 1, "--batch-size", 2
    flags = *flags, "--num-films", 2, "--num-cuts", 2, "--num-clips", 8, "--device", "cpu"
    written = "--json", tmp_path / "pong.json", "--picture", tmp_path / "pong.png"
    assert call(PONG, "--data-path", a_game_of_pong(tmp_path / "pong"), *flags, *written) == 0
    scores = read_json(tmp_path / "pong.json")
    assert scores["clips"] == 2 and (tmp_path / "pong.png").stat().st_size > 1_000
    assert scores["every_frame_repainted"]["ball_error_px"] < 0.1 and scores["every_frame_repainted"]["ball_color"] == 1
    assert scores["standing_still"]["ball_error_px"] == pytest.approx(4 * 5**0.5, abs=0.1)  # 2 to the left and 1 down a frame
    assert scores.keys() >= {"with_flow", "without_flow"}
    assert call(PONG, "--data-path", f"{tmp_path}/moca/../pong/", *flags) == 0  # the same recording by another name
    shutil.rmtree(tmp_path / "pong")
    assert call(PONG, "--data-path", a_game_of_pong(tmp_path / "pong", "ale_py:ALE/Pong-v5"), *flags) == 2
    assert "vae.pt was trained on" in capsys.readouterr().err
    assert call(PONG, "--data-path", a_game_of_pong(tmp_path / "other", "ALE/Breakout-v5"), *flags) == 2
    assert "holds no Pong of 64x64 pixels" in capsys.readouterr().err
