"""Sound: tokens that know no later sample, onsets counted by hand, and bounces that the shipped worlds hear in time."""

from pathlib import Path

import numpy as np
import pytest
import torch
from script_runner import call
from server_fixture import PlayerClient, with_player
from structure_checks import REPOSITORY
from tiny_world import save, save_tiny_world

from dynamics_model.models.base import codes_of
from uses.sound.config import SoundConfig
from uses.sound.games import encode, play_games
from uses.sound.model import SoundModel, SoundTokenizer, load_sound, to_samples, to_wave
from uses.sound.scores import baselines, frames_alike, game_scores, matched, onset_scores, onsets, tokenizer_scores
from uses.sound.train import onset_error, predictor_loss, tokenizer_loss
from video_tokenizer.errors import InputError
from video_tokenizer.games.emulator import CHUNK, SILENT_LEVEL, SOUND_RATE
from video_tokenizer.training.checkpoint import load_checkpoint, write_torch_file
from video_tokenizer.training.results import read_json
from world_model.play.world_registry import WorldRegistry
from world_model.world import WorldModel

TRAIN, VALIDATE = (REPOSITORY / "4.inference/uses/sound" / name for name in ("train.py", "validate.py"))
RECORD = REPOSITORY / "1.video-tokenizer/record.py"
TINY = SoundConfig(width=8, embed_dim=8, levels=(3, 3), grid_size=(4, 4), heard_tokens=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A tiny world with a network of random weights, which makes a sound now and then."""
    folder = save_tiny_world(tmp_path_factory.mktemp("worlds") / "breakout")
    known_by = load_checkpoint(folder / "dynamics.pt", "dynamics")["tokenizer_fingerprint"]
    save("sound", folder, TINY.model, TINY, a_model(), tokenizer_fingerprint=known_by)
    return folder


def a_model() -> SoundModel:
    torch.manual_seed(3)
    return SoundModel(TINY).eval()


def square_wave(half_period: int, start: int, stop: int, length: int) -> np.ndarray:
    """uint8 (length,): what the Atari plays, 188 and 128 in turn from sample `start` to `stop`."""
    time = np.arange(length)
    return np.where((time >= start) & (time < stop) & ((time - start) // half_period % 2 == 0), 188, 128).astype(np.uint8)


# ---- the tokenizer ------------------------------------------------------------------------------------------------------


def test_a_chunk_becomes_one_token_that_knows_nothing_of_later_samples():
    tokenizer = SoundTokenizer((4, 4, 4, 4), 16)
    wave = to_wave(square_wave(27, 100, 3000, 8 * CHUNK))[None]
    changed = wave.clone()
    changed[:, 5 * CHUNK :] = 1.0  # alter the last three chunks
    tokens, others = tokenizer.encode(wave), tokenizer.encode(changed)
    assert tokens.indices.shape == (1, 8) and torch.equal(tokens.codes[:, :5], others.codes[:, :5])
    assert not torch.equal(tokenizer.encode(wave + 1).codes, tokens.codes)
    decoded, other = tokenizer.decode(tokens.codes), tokenizer.decode(torch.cat([tokens.codes[:, :5], -tokens.codes[:, 5:]], 1))
    assert decoded.shape == wave.shape and torch.equal(decoded[:, : 5 * CHUNK], other[:, : 5 * CHUNK])


def test_samples_survive_the_way_to_numbers_and_back():
    samples = np.arange(256, dtype=np.uint8)
    assert to_wave(samples)[128] == 0 and np.array_equal(to_samples(to_wave(samples)), samples)


def test_a_rollout_sounds_the_same_frame_by_frame_as_all_at_once():
    model, codes = a_model(), torch.randn(7, 16, 4, generator=torch.Generator().manual_seed(0))
    stream = model.stream(codes[:1])
    stream.threshold = 0.85  # so that some chunks sound and some do not
    tokens, sound = [], []
    for frame in codes:
        sound.append(stream.next(frame))
        tokens += stream.tokens[-TINY.chunks :]
    assert len(stream.tokens) == TINY.chunks and len(set(tokens)) > 1  # what is kept does not grow
    whole = model.tokenizer.decode(model.tokenizer.quantizer.indices_to_codes(torch.tensor([tokens])))[0]
    assert np.abs(np.concatenate(sound).astype(int) - to_samples(whole)).max() <= 1  # up to rounding


def test_the_losses_reach_their_own_half_of_the_model_only():
    model, wave = a_model(), to_wave(square_wave(27, 100, 9000, 4 * 4 * CHUNK))[None].repeat(2, 1)
    tokenizer_loss(model, wave).backward()
    assert all((weights.grad is not None) == name.startswith("tokenizer") for name, weights in model.named_parameters())
    model.zero_grad()
    predictor_loss(model, torch.randn(2, 4, 16, 4), wave).backward()
    assert all((weights.grad is None) == name.startswith("tokenizer") for name, weights in model.named_parameters())


# ---- the scores ---------------------------------------------------------------------------------------------------------


def game_with_sounds(*ranges: tuple[int, int], frames: int = 30) -> np.ndarray:
    """(frames, 4 * 512) uint8: a square wave in the chunks from start to stop."""
    sound = np.full(frames * 4 * CHUNK, 128, np.uint8)
    for start, stop in ranges:
        sound[start * CHUNK : stop * CHUNK] = square_wave(27, 0, 10**6, (stop - start) * CHUNK)
    return sound.reshape(frames, -1)


def test_a_sound_begins_where_the_chunk_before_it_was_silent():
    """Chunks 13 to 18 are the end of frame 3 and frame 4; chunk 20 follows one silent chunk and begins again, in frame 5."""
    assert onsets(game_with_sounds((13, 19), (20, 22), (60, 61))).tolist() == [3, 5, 15]
    assert onsets(game_with_sounds((0, 4))).tolist() == []  # it may have begun before the first frame


def test_each_sound_is_matched_once_and_the_closest_first():
    """12 takes the 12, which is closest, so 11 is left for 10. For 20 there is only 28, which is 8 frames late."""
    real, predicted = np.array([10, 12, 20]), np.array([11, 12, 28])
    assert sorted(matched(real, predicted, 2)) == [(0, 0), (1, 1)]
    assert sorted(matched(real, predicted, 8)) == [(0, 0), (1, 1), (2, 2)]


def test_onsets_are_scored_by_hand():
    """Real sounds begin in frames 3, 10 and 20, predicted ones in 4, 14 and 27: one is found, 1 frame late, one is 4 frames late
    and one 7. The sound of frame 10 lasts until frame 12, so the one of frame 14 is not in silence, and that of 27 is."""
    real, predicted = game_with_sounds((12, 16), (40, 52), (80, 84)), game_with_sounds((16, 20), (56, 60), (108, 112))
    scores = onset_scores([real], [predicted])
    assert scores["found"] == 1 / 3 and scores["false"] == 2 / 3 and scores["in_silence"] == 1 / 3
    assert {offset: count for offset, count in scores["offsets"].items() if count} == {"1": 1, "4": 1, "7": 1}
    assert onset_scores([real], [real])["found"] == 1 and onset_scores([real], [np.full_like(real, 128)])["found"] == 0


def test_chance_never_contains_the_truth():
    """One sound of one chunk, heard rightly: shifted by more than two frames, around the end too, it never finds itself."""
    sound = [game_with_sounds((40, 41), frames=12)]
    assert onset_scores(sound, sound)["found"] == 1 and baselines(sound, sound, seed=0)["chance"]["found"] == 0
    assert baselines(short := [sound[0][:2]], short, seed=0)["chance"].keys() == {"found", "false", "in_silence"}


def test_a_network_that_falls_silent_does_not_replace_a_better_one():
    real, silent = game_with_sounds((12, 16), (40, 52)), np.full((30, 4 * CHUNK), SILENT_LEVEL, np.uint8)
    half = game_with_sounds((12, 16), (80, 84))  # one of two is found, one of two is false
    assert onset_error(onset_scores([real], [half])) == 0 and onset_error(onset_scores([real], [silent])) == 1
    assert np.isnan(onset_error({"found": np.nan, "false": np.nan}))  # the tokenizer still learns


def test_a_dream_is_like_the_game_until_its_ball_is_elsewhere():
    """Of five frames the ball of the first dream is 3 pixels off in the fourth. The second has no ball, and nothing speaks
    against it."""
    real = np.full((2, 5, 64, 64, 3), (144, 72, 17), np.uint8)
    dreamed = real.copy()
    for t in range(5):
        real[:, t, 30, 20 + t], dreamed[0, t, 30, 20 + t + 3 * (t == 3)] = 236, 236
    assert frames_alike(dreamed, real, "ALE/Pong-v5").tolist() == [3, 5]
    assert frames_alike(dreamed, real, "ALE/Boxing-v5").tolist() == [5, 5]


# ---- the shipped worlds -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("game", ["breakout", "pong"])
def test_a_reference_world_hears_most_bounces_in_time_and_hardly_any_that_are_not_there(game):
    shipped = REPOSITORY / "assets/worlds" / game
    world = WorldModel.load(shipped, "cpu")
    heard = encode(world, play_games(world, 2, 100, seed=5).store)
    scores = game_scores(load_sound(shipped / "sound.pt", world), heard, heard.store.episodes)
    assert scores["onsets"] >= 10 and scores["found"] >= 0.8 and scores["in_silence"] <= 0.1
    assert scores["baselines"]["chance"]["found"] < scores["found"] - 0.25 and scores["baselines"]["silence"]["found"] == 0
    assert scores["snr_db"] > 6 and scores["pitch"] > 0.8
    assert (shipped / "sound.pt").stat().st_size < 250_000


# ---- in play ------------------------------------------------------------------------------------------------------------


def test_the_page_gets_the_sound_of_each_frame_behind_its_pictures(folder, tmp_path):
    silent, world = save_tiny_world(tmp_path / "silent"), WorldModel.load(folder, "cpu")
    model = load_sound(folder / "sound.pt", world)
    state = world.start_rollouts(world.start_frames[:1], world.start_actions[:1], 0)
    stream = model.stream(codes_of(state.latest, world.tokenizer))

    async def test(player: PlayerClient) -> None:
        assert (await player.ask("open", world=folder.as_posix()))[0]["can_sound"]
        await player.ask("begin", seed=0)
        assert (await player.ask("sound", on=True))[0]["on"]
        for _ in range(4):
            head, payload = await player.ask("step", key="LEFT")
            pictures = world.step_rollouts(state, np.array([world.action_map["LEFT"]]))
            expected = stream.next(codes_of(state.latest, world.tokenizer)[0])
            assert head["samples"] == len(expected) == 4 * CHUNK
            assert payload.tobytes() == pictures.tobytes() + expected.tobytes()
        await player.ask("sound", on=False)
        assert "samples" not in (await player.ask("step", key="LEFT"))[0]
        await player.ask("sound", on=True)
        assert not (await player.ask("open", world=silent.as_posix()))[0]["can_sound"]
        await player.ask("begin")
        assert "samples" not in (await player.ask("step", key="LEFT"))[0]
        refusal = (await player.ask("sound", on=True))[0]
        assert refusal["kind"] == "error" and "folder as sound.pt" in refusal["text"]

    with_player(WorldRegistry([folder, silent], "cpu"), test)


def test_the_page_plays_at_the_emulators_rate():
    page = (REPOSITORY / "4.inference/world_model/play/page/sound.js").read_text(encoding="utf-8")
    assert f"const RATE = {SOUND_RATE};" in page and f"- {SILENT_LEVEL})" in page


@pytest.mark.parametrize("changed", [{"frame_skip": 2}, {"tokenizer_fingerprint": "of another"}])
def test_the_sound_of_another_world_is_refused_where_it_is_scored_and_where_it_is_played(folder, tmp_path, capsys, changed):
    other = save_tiny_world(tmp_path / "other", **({"frame_skip": 2} if "frame_skip" in changed else {}))
    content = load_checkpoint(folder / "sound.pt", "sound")
    write_torch_file(other / "sound.pt", content | changed)
    assert call(VALIDATE, "--world", other, "--device", "cpu") == 2
    assert "sound.pt was trained on another world" in capsys.readouterr().err.splitlines()[-1]
    with pytest.raises(InputError, match="was trained on another world"):
        WorldRegistry([other], "cpu").load("")


def test_the_exported_copy_of_a_world_takes_its_sound_along(folder, tmp_path):
    """Rounding changes the fingerprint of its tokenizer."""
    assert call(REPOSITORY / "4.inference/lab/export_world.py", "--world", folder, "--output", tmp_path / "copy") == 0
    copy, world = WorldModel.load(tmp_path / "copy", "cpu"), WorldModel.load(folder, "cpu")
    assert load_sound(tmp_path / "copy/sound.pt", copy).config == TINY
    with pytest.raises(InputError, match="was trained on another world"):
        load_sound(tmp_path / "copy/sound.pt", world)


def test_a_recording_with_another_frame_skip_is_refused(folder, tmp_path, capsys):
    store = tmp_path / "store"
    flags = ("--num-frames", 40, "--frame-size", 32, "--frame-skip", 2, "--picture-delay", 1, "--sound", "--output", store)
    assert call(RECORD, *flags) == 0
    assert call(TRAIN, "--world", folder, "--data-path", store, "--checkpoint-dir", tmp_path / "run", "--device", "cpu") == 2
    assert "record it with --frame-skip 4, the world's" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "run").exists()


# ---- the scripts --------------------------------------------------------------------------------------------------------


def test_a_training_on_played_games_learns_the_sound_and_is_scored_on_others(folder, tmp_path, capsys):
    run = tmp_path / "run"
    played = ("--num-games", 4, "--game-frames", 40, "--num-steps", 150, "--tokenizer-steps", 140, "--warmup-steps", 10)
    assert call(TRAIN, "--world", folder, "--checkpoint-dir", run, *played, "--batch-size", 8, "--device", "cpu") == 0
    world = WorldModel.load(folder, "cpu")
    model = load_sound(run / "final_model.pt", world)
    untrained = SoundModel(model.config)
    sound = play_games(world, 2, 40, 3).store.array("sound")
    assert tokenizer_scores(model, [sound])["snr_db"] > tokenizer_scores(untrained, [sound])["snr_db"] + 0.5
    flags = ("--num-games", 2, "--game-frames", 30, "--num-dreams", 2, "--dream-frames", 8, "--output", tmp_path)
    json = tmp_path / "scores.json"
    json.write_text('{"pong": {"kept": 1}}')
    assert call(VALIDATE, "--world", folder, "--checkpoint", run / "final_model.pt", *flags, "--json", json) == 0
    assert "sounds begin in the emulator" in capsys.readouterr().out
    scores = read_json(json)
    assert scores["pong"] == {"kept": 1} and scores["breakout"].keys() >= {"games", "dreams"}
    assert scores["breakout"]["settings"]["num_games"] == 2
    assert scores["breakout"]["dreams"].keys() == {"first_8", "alike"}
    assert 0 <= scores["breakout"]["dreams"]["alike"]["mean_frames"] <= 8
    assert (tmp_path / "dream.wav").stat().st_size == 44 + 8 * 4 * CHUNK and (tmp_path / "dream.gif").exists()
    assert (tmp_path / "sound.png").stat().st_size > 5_000


@pytest.mark.parametrize(
    ("script", "flags", "words"),
    [
        (TRAIN, ("--levels", 1, 4), "levels (1, 4) are impossible"),
        (TRAIN, ("--tokenizer-steps", 6_000), "leave none of num_steps 6000 for the predictor"),
        (TRAIN, ("--num-frames", 2), "num_frames 2 is less than seen_frames 3"),
        (TRAIN, ("--num-epochs", 1), "--num-epochs 1 does not say how long each half learns"),
        (TRAIN, ("--num-games", 2_001), "--num-games 2001 may be 2000 at most"),
        (VALIDATE, ("--num-games", 2_001), "--num-games 2001 may be 2000 at most"),
        (TRAIN, ("--use-dummy-data",), "holds no sound; record the game again with 1.video-tokenizer/record.py --sound"),
        (VALIDATE, ("--checkpoint", "nowhere.pt"), "nowhere.pt does not exist"),
        (VALIDATE, ("--dream-frames", 50, "--num-games", 1, "--game-frames", 20), "no game lasted 53 frames"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(folder, tmp_path, capsys, script, flags, words):
    assert call(script, "--world", folder, *flags, *(("--checkpoint-dir", tmp_path / "run") if script == TRAIN else ())) == 2
    said = capsys.readouterr().err.splitlines()
    assert words in said[-1] and not (tmp_path / "run").exists()
