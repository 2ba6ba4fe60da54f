"""What train.py, validate.py and the later chapters ask of a tokenizer, asked of every one there is."""

import json
import os
import re
from dataclasses import asdict

import numpy as np
import pytest
import torch
from script_runner import call, load_script
from structure_checks import REPOSITORY
from tiny_tokenizers import CAUSAL, WITHOUT_CODEBOOK, flags, stirred, tiny_config, train_script

from dynamics_model.data.frame_cache import encode_store, rollout_clips
from dynamics_model.rollouts import decode_after
from video_tokenizer import load_tokenizer
from video_tokenizer.data.clips import Clips, to_video
from video_tokenizer.data.video_files import write_video
from video_tokenizer.errors import InputError
from video_tokenizer.games.moving_square import dummy_clip_store
from video_tokenizer.registry import TOKENIZERS, build_tokenizer, tokenizer_class
from video_tokenizer.training.checkpoint import save_checkpoint

VALIDATE = REPOSITORY / "1.video-tokenizer" / "validate.py"
VARIANTS = REPOSITORY / "1.video-tokenizer" / "tokenizer_variants"
TRAIN_3 = REPOSITORY / "3.dynamics-model" / "train.py"
VALIDATE_3 = REPOSITORY / "3.dynamics-model" / "validate.py"
every_tokenizer = pytest.mark.parametrize("name", TOKENIZERS)


@pytest.fixture
def clip():
    """(2, 5, 3, 16, 16): smooth pictures in which something changes from frame to frame."""
    noise = torch.rand(2, 5, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.interpolate(noise.flatten(0, 1), size=16, mode="bilinear").unflatten(0, (2, 5))


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """A folder of two films of 40 frames, 16 rows by 24 columns, in which a bright bar walks."""
    folder = tmp_path_factory.mktemp("films")
    for number in range(2):
        frames = np.full((40, 16, 24, 3), 60 * number, dtype=np.uint8)
        for t in range(40):
            frames[t, :, t % 24] = 250
        write_video(folder / f"{number}.avi", frames, 10.0, "FFV1")
    return folder


def built(name, **changes):
    """A tokenizer with random weights, none of them zero; a codebook that starts from data has seen some."""
    torch.manual_seed(0)
    tokenizer = stirred(build_tokenizer(tiny_config(name, **changes))).train()
    tokenizer(torch.rand(2, 5, 3, *tokenizer.frame_size))
    return tokenizer.eval()


def test_the_registry_and_the_settings_name_the_same_tokenizers():
    assert all(tokenizer_class(name).config_class().model == name for name in TOKENIZERS)
    with pytest.raises(InputError, match="no tokenizer called 'vqvae'; there are st-fsq, "):
        tokenizer_class("vqvae")


def test_the_variant_is_chosen_by_flag_then_by_config_file(tmp_path):
    choose, file = load_script(VARIANTS / "train.py").chosen_model, tmp_path / "config.json"
    file.write_text(json.dumps({"model": "st-vq"}))
    assert choose(["--config", str(file)]) == "st-vq" and choose(["--config", str(file), "--model=videogpt"]) == "videogpt"
    with pytest.raises(InputError, match="magvit2 is trained by tokenizer_variants"):
        choose(["--model", "magvit2"])


@every_tokenizer
@torch.no_grad()
def test_shapes_ranges_and_the_way_through_the_tokens(name, clip):
    tokenizer = built(name)
    encoded, output = tokenizer.encode(clip), tokenizer(clip)
    named = tokenizer.tokens_per_frame if tokenizer.codebook_size else 0
    assert encoded.indices.shape == output.indices.shape == (*clip.shape[:2], named)
    assert encoded.codes.shape == output.codes.shape == (*clip.shape[:2], tokenizer.tokens_per_frame, tokenizer.code_length)
    assert encoded.indices.dtype == torch.int64
    assert ((encoded.indices >= 0) & (encoded.indices < tokenizer.codebook_size)).all()
    assert torch.equal(encoded.indices, output.indices)
    video = tokenizer.decode(encoded.codes)
    assert video.shape == clip.shape and video.min() >= 0 and video.max() <= 1
    assert torch.allclose(video, output.reconstruction, atol=1e-5)
    if tokenizer.codebook_size:
        assert torch.allclose(video, tokenizer.decode_indices(encoded.indices), atol=1e-5)


@every_tokenizer
@torch.no_grad()
def test_frames_may_be_wider_than_high(name):
    tokenizer = built(name, frame_size=(16, 24))
    wide = torch.rand(2, 5, 3, 16, 24)
    codes = tokenizer.encode(wide).codes
    video = tokenizer.decode(codes)
    assert video.shape == wide.shape and torch.allclose(video, tokenizer(wide).reconstruction, atol=1e-5)
    if tokenizer.is_causal:
        cache, frames = None, []
        for step in codes.split(1, dim=1):
            frame, cache = tokenizer.decode_next(step, cache)
            frames.append(frame)
        assert torch.allclose(torch.cat(frames, dim=1), video, atol=1e-4)
    with pytest.raises(InputError, match=r"frame_size .*23"):
        build_tokenizer(tiny_config(name, frame_size=(16, 23)))


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_tokenizer_says_whether_it_has_a_codebook(name, clip):
    tokenizer = built(name)
    assert (tokenizer.codebook_size == 0) == (name in WITHOUT_CODEBOOK)
    noise = tokenizer.random_codes(tokenizer.encode(clip).codes, torch.Generator().manual_seed(0))
    assert noise.shape == (*clip.shape[:2], tokenizer.tokens_per_frame, tokenizer.code_length)
    if name in WITHOUT_CODEBOOK:
        assert tokenizer.bits_per_frame == 16 * tokenizer.tokens_per_frame * tokenizer.code_length
        assert noise.abs().max() <= 1 and tokenizer.encode(clip).codes.abs().max() <= 1
        with pytest.raises(InputError, match=f"{name} has no codebook"):
            tokenizer.decode_indices(torch.zeros(1, 1, tokenizer.tokens_per_frame, dtype=torch.int64))


def other_codes(tokenizer, encoded):
    """Codes that differ from these in every token."""
    if not tokenizer.codebook_size:
        return -encoded.codes
    return tokenizer.indices_to_codes((encoded.indices + tokenizer.codebook_size // 2) % tokenizer.codebook_size)


@pytest.mark.parametrize("name", CAUSAL)
@torch.no_grad()
def test_nothing_depends_on_what_comes_later(name, clip):
    tokenizer = built(name)
    changed = clip.clone()
    changed[:, 3:] = 0.0
    before, after = tokenizer.encode(clip), tokenizer.encode(changed)
    assert torch.equal(before.indices[:, :3], after.indices[:, :3]) and torch.equal(before.codes[:, :3], after.codes[:, :3])
    assert not torch.equal(before.codes, after.codes)
    others = torch.cat([before.codes[:, :3], other_codes(tokenizer, before)[:, 3:]], dim=1)
    seen, seen_after = tokenizer.decode(before.codes), tokenizer.decode(others)
    assert torch.equal(seen[:, :3], seen_after[:, :3]) and not torch.equal(seen, seen_after)


@pytest.mark.parametrize("name", CAUSAL)
@torch.no_grad()
def test_frame_by_frame_is_all_at_once(name):
    tokenizer = built(name)
    clip = torch.rand(1, 12, 3, 16, 16)
    together = tokenizer.encode(clip)
    video = tokenizer.decode(together.codes)
    encoder_cache = decoder_cache = None
    for t in range(clip.shape[1]):
        encoded, encoder_cache = tokenizer.encode_frame(clip[:, t], encoder_cache)
        assert torch.equal(encoded.indices, together.indices[:, t]), t
        assert torch.allclose(encoded.codes, together.codes[:, t], atol=1e-4), t
        if tokenizer.codebook_size:
            frame, decoder_cache = tokenizer.decode_frame(encoded.indices, decoder_cache)
        else:
            frames, decoder_cache = tokenizer.decode_next(encoded.codes[:, None], decoder_cache)
            frame = frames[:, 0]
        assert torch.allclose(frame, video[:, t], atol=1e-4), t


@pytest.mark.parametrize("name", [name for name in TOKENIZERS if name not in CAUSAL])
def test_what_looks_ahead_says_so_when_asked_for_a_stream(name):
    tokenizer = built(name)
    with pytest.raises(InputError, match=f"{name} depends on later frames"):
        tokenizer.encode_frame(torch.rand(1, 3, 16, 16))
    with pytest.raises(InputError, match=f"{name} depends on later frames"):
        tokenizer.decode_next(torch.zeros(1, 1, tokenizer.tokens_per_frame, tokenizer.code_length))


@every_tokenizer
def test_every_parameter_receives_a_gradient(name, clip):
    tokenizer = built(name).train()
    sum(tokenizer.loss(clip, tokenizer(clip), torch.zeros(3, 16, 16)).values()).backward()
    assert [key for key, parameter in tokenizer.named_parameters() if parameter.grad is None] == []


def saved(tokenizer, folder):
    """Path of a checkpoint with the tokenizer's present weights."""
    path = folder / "tokenizer.pt"
    save_checkpoint(path, "tokenizer", tokenizer.config.model, asdict(tokenizer.config), tokenizer.state_dict(), 0, {}, "")
    return path


@every_tokenizer
@torch.no_grad()
def test_a_checkpoint_rebuilds_it_bit_by_bit(name, clip, tmp_path):
    tokenizer = built(name)
    again = load_tokenizer(saved(tokenizer, tmp_path))
    assert type(again) is type(tokenizer)
    assert torch.equal(again(clip).reconstruction, tokenizer(clip).reconstruction)


@every_tokenizer
def test_validation_scores_and_draws_it(name, tmp_path):
    """Every number in validation.json, the tokenizer's own ones among them, and every picture it has something to show in."""
    tokenizer = built(name)
    common = ["--use-dummy-data", "--num-batches", 1, "--batch-size", 2, "--save-images", "--output", tmp_path, "--device", "cpu"]
    assert call(VALIDATE, "--checkpoint", saved(tokenizer, tmp_path), *common) == 0
    scores = json.loads((tmp_path / "validation.json").read_text())
    assert scores["bits_per_frame"] == tokenizer.bits_per_frame and scores["codebook_size"] == tokenizer.codebook_size
    assert scores["psnr_db"] > scores["rows"]["random_tokens"]["psnr_db"] - 20
    video = torch.rand(1, 3, 3, 16, 16)
    with torch.no_grad():
        own_scores, own_picture = tokenizer.diagnostics(video)
    assert all(row.shape == video.shape and row.min() >= 0 and row.max() <= 1 for row in own_picture.values())
    assert scores.get("own_scores", {}).keys() == own_scores.keys()
    pictures = {path.name for path in tmp_path.glob("*.png")}
    assert {"reconstructions.png", "noise_control.png"} <= pictures and ("own.png" in pictures) == bool(own_picture)
    assert ("code_usage.png" in pictures) == (tokenizer.codebook_size > 0)


@pytest.mark.parametrize("name", [name for name in TOKENIZERS if name not in WITHOUT_CODEBOOK])
def test_the_dynamics_model_learns_with_its_tokens(name, tmp_path):
    """Trained on clips of 5 frames, it must serve a model of 8: one that looks ahead in pieces."""
    sizes = ["--frame-size", 16, "--embed-dim", 32, "--num-blocks", 1, "--num-heads", 2, "--num-frames", 8, "--context-frames", 7]
    flags_3 = ["--use-dummy-data", "--actions", "true", *sizes, "--batch-size", 2, "--num-steps", 2, "--validation-batches", 1]
    checkpoint = saved(built(name, num_frames=5), tmp_path)
    assert call(TRAIN_3, *flags_3, "--tokenizer-checkpoint", checkpoint, "--checkpoint-dir", tmp_path / "dynamics") == 0
    assert json.loads((tmp_path / "dynamics" / "metrics.json").read_text())["loss"] > 0
    common = ["--checkpoint", tmp_path / "dynamics" / "best_model.pt", "--json", tmp_path / "numbers.json"]
    few = ["--num-batches", 1, "--num-rollouts", 2, "--num-samples", 1]
    assert call(VALIDATE_3, *common, *few, "--save-images", "--output", tmp_path / "pictures") == 0
    assert json.loads((tmp_path / "numbers.json").read_text())["loss"] > 0


@torch.no_grad()
def test_real_tokens_are_decoded_in_the_pieces_they_were_encoded_in(tmp_path):
    """Pieces of 5 frames, in episodes of 21 that begin at 0, 21, 42, ...: at every remainder of 5."""
    tokenizer, store = built("videogpt"), dummy_clip_store(tmp_path / "clips", 5, 21, (16, 16))
    stored = torch.from_numpy(encode_store(store, tokenizer, torch.device("cpu"), "float32")).long()

    def decoded(clips, index):
        """Frames 7 and later of a clip: from the store's tokens, and by the tokenizer from the clip itself."""
        start, video = int(clips.starts[index]), to_video(clips[index]["frames"][None])
        tokens = stored[None, start : start + clips.num_frames]
        pieces = [tokenizer(piece).reconstruction for piece in video.split(5, dim=1)]
        return decode_after(tokenizer, tokens[:, :7], tokens[:, 7:]), torch.cat(pieces, dim=1)[:, 7:]

    clips = rollout_clips(store, range(5), 12, tokenizer)
    assert clips.num_frames == 15 and {start % 5 for start in clips.starts.tolist()} == {0, 1, 2, 3, 4}
    assert all(torch.allclose(*decoded(clips, index), atol=1e-5) for index in range(len(clips)))
    anywhere = Clips(store, range(5), 15)
    assert not torch.allclose(*decoded(anywhere, 1), atol=1e-3)  # begins in the middle of a piece


@pytest.mark.parametrize("name", WITHOUT_CODEBOOK)
def test_the_dynamics_model_refuses_what_has_no_tokens(name, tmp_path, capsys):
    flags_3 = ["--use-dummy-data", "--frame-size", 16, "--actions", "true", "--checkpoint-dir", tmp_path / "dynamics"]
    assert call(TRAIN_3, *flags_3, "--tokenizer-checkpoint", saved(built(name), tmp_path)) == 2
    said = capsys.readouterr().err
    assert f"this {name} tokenizer has no codebook; the dynamics model needs tokens" in said and said.count("\n") == 1


@every_tokenizer
def test_evaluation_changes_nothing(name, clip):
    tokenizer = built(name)
    before = {key: value.clone() for key, value in tokenizer.state_dict().items()}
    tokenizer(clip), tokenizer.encode(clip)
    assert all(torch.equal(value, before[key]) for key, value in tokenizer.state_dict().items())


@every_tokenizer
def test_training_on_a_folder_of_films_stops_and_goes_on_as_if_nothing_had_happened(name, films, tmp_path, monkeypatch):
    """Six steps in one go, and three, a stop, three more: the same weights to the bit."""
    common = ["--data-path", films, "--frame-size", 16, "--num-steps", 6, "--batch-size", 2, "--validation-batches", 1,
              "--save-every", 3, "--validate-every", 6, "--warmup-steps", 1, "--device", "cpu", *flags(name)]  # fmt: skip
    train = train_script(name)
    assert call(train, *common, "--checkpoint-dir", tmp_path / "whole") == 0

    from video_tokenizer.training import run

    keep = run.Run._save_resume

    def keep_and_stop(self):
        keep(self)
        if self.step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(run.Run, "_save_resume", keep_and_stop)
        assert call(train, *common, "--checkpoint-dir", tmp_path / "halves") == 130
    assert call(train, *common, "--checkpoint-dir", tmp_path / "halves") == 0
    whole, halves = (load_tokenizer(tmp_path / folder / "final_model.pt").state_dict() for folder in ("whole", "halves"))
    assert all(torch.equal(whole[key], halves[key]) for key in whole)
    assert os.path.exists(tmp_path / "halves" / "samples.png")
    assert "NaN" not in (tmp_path / "whole" / "metrics.json").read_text()  # which JSON does not know


@pytest.mark.parametrize("name", ["st-fsq", "elastictok", "magvit2"])
def test_only_the_main_line_trains_into_the_folder_that_later_chapters_read(name, tmp_path, monkeypatch):
    from video_tokenizer.training import run

    monkeypatch.setattr(run, "chapter_folder", lambda kind: tmp_path)
    common = ["--use-dummy-data", "--frame-size", 16, "--num-steps", 1, "--batch-size", 2, "--validation-batches", 1]
    assert call(train_script(name), *common, "--warmup-steps", 1, "--device", "cpu", *flags(name)) == 0
    folder = tmp_path / "checkpoints" if name == "st-fsq" else tmp_path / "checkpoints" / name
    assert [file.parent for file in tmp_path.rglob("best_model.pt")] == [folder]


def test_the_pages_name_tests_that_are_there():
    """In the checklists a test is called by its name, in italics and with spaces for underscores."""
    pages = [page.read_text() for page in (REPOSITORY / "1.video-tokenizer/tokenizer_variants").rglob("*.md")]
    rows = [line for page in pages for line in page.splitlines() if line.startswith("|")]
    named = {"test_" + name.replace(" ", "_") for row in rows for name in re.findall(r"(?<!\*)\*([^*]+)\*(?!\*)", row)}
    tests = "\n".join(file.read_text() for file in (REPOSITORY / "tests").rglob("test_*.py"))
    assert named and named <= set(re.findall(r"^def (test_\w+)", tests, re.M))
