"""Recording games: a frame shows the movement of the action stored with it, and small objects survive the resize."""

from pathlib import Path

import gymnasium
import numpy as np
import pytest
from script_runner import call

from video_tokenizer.data.clip_store import open_clip_store
from video_tokenizer.data.sources import open_clips_source
from video_tokenizer.data.video_files import LINEAR_LIGHT, resize_by_area
from video_tokenizer.errors import InputError
from video_tokenizer.games.detectors import (
    GAMES,
    ball_position,
    detect_ball,
    detect_player,
    game_facts,
    player_distortion,
    player_position,
)
from video_tokenizer.games.emulator import MAX_NOOP_STEPS, Game, record_episode
from video_tokenizer.games.picture_delay import MeasuredDelay, calibrate_picture_delay
from video_tokenizer.games.policies import MixedPolicy, make_players, random_policy, replay

BREAKOUT = "ALE/Breakout-v5"
RECORD = Path(__file__).parents[2] / "1.video-tokenizer" / "record.py"


@pytest.fixture(scope="module")
def breakout():
    return Game(BREAKOUT)


@pytest.fixture(scope="module")
def rally(breakout):
    """200 frames in which the scripted player returns the ball, with the Atari's RAM at every frame."""
    return record_episode(breakout, make_players("scripted", breakout)["scripted"], 200, seed=3)


class SlowSquare(gymnasium.Env):
    """A 32x32 world whose white 8x8 square moves one pixel per frame, `lag` frames after the action: 1 right, 2 left, 0 rest."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 40}  # noqa: RUF012
    action_space = gymnasium.spaces.Discrete(3)
    observation_space = gymnasium.spaces.Discrete(1)

    def __init__(self, render_mode="rgb_array", lag=1):
        self.render_mode, self.lag = render_mode, lag

    def reset(self, *, seed=None, options=None):
        self.place, self.pending = 12, [0] * self.lag
        return 0, {}

    def step(self, action):
        self.pending.append(int(action))
        self.place = int(np.clip(self.place + (0, 1, -1)[self.pending.pop(0)], 0, 24))
        return 0, 0.0, False, False, {}

    def render(self):
        picture = np.zeros((32, 32, 3), dtype=np.uint8)
        picture[12:20, self.place : self.place + 8] = 255
        return picture


class PaysEveryFrame(SlowSquare):
    """Its n-th emulator frame pays n. The game ends with the tenth, or is cut there."""

    def __init__(self, render_mode="rgb_array", is_cut=False):
        super().__init__(render_mode)
        self.is_cut = is_cut

    def reset(self, *, seed=None, options=None):
        self.played = 0
        return super().reset()

    def step(self, action):
        self.played += 1
        over = self.played == 10
        return 0, float(self.played), over and not self.is_cut, over and self.is_cut, {}


gymnasium.register("SlowSquare-v0", SlowSquare)
for is_cut in (True, False):
    gymnasium.register(f"Pays{is_cut}-v0", PaysEveryFrame, kwargs={"is_cut": is_cut})
gymnasium.register("PromptSquare-v0", SlowSquare, kwargs={"lag": 0})


def test_a_frame_is_shrunk_by_averaging_light_and_not_the_values_that_stand_for_it():
    """Half white is half of white's light, which the value 188 stands for. 200 stands for 0.578 of it; a quarter is 106."""
    half, quarter = np.zeros((2, 2, 2, 3), dtype=np.uint8)
    half[:, 1], quarter[1, 1] = 255, 200
    assert (resize_by_area(half, (1, 1)) == 188).all() and (resize_by_area(half, (1, 1), linear_light=False) == 128).all()
    assert (resize_by_area(quarter, (1, 1)) == 106).all() and (resize_by_area(quarter, (1, 1), linear_light=False) == 50).all()
    assert np.array_equal(resize_by_area(half, (4, 4)), resize_by_area(half, (4, 4), linear_light=False))  # enlarged: no average
    for value in range(256):  # one color stays exactly as it is
        assert (resize_by_area(np.full((21, 16, 3), value, np.uint8), (8, 9)) == value).all()


def test_area_resize_averages_so_that_a_ball_between_the_samples_stays():
    picture = np.zeros((210, 160, 3), dtype=np.uint8)
    picture[101:105, 80:82] = 200  # a ball of 2x4 pixels, 8 of the 33,600
    small = LINEAR_LIGHT[resize_by_area(picture, (64, 64))]
    assert small.mean() == pytest.approx(LINEAR_LIGHT[picture].mean(), rel=0.01)  # no light is lost


def test_an_average_of_light_keeps_the_ball_at_half_its_contrast_or_more(breakout, rally):
    """The brightest pixel of the ball in the open field, as a share of the ball's own color, over a rally."""
    old = record_episode(Game(BREAKOUT, linear_light=False), replay(rally.actions[1:]), 200, seed=3)
    ball = np.nan_to_num(ball_position(rally.ram, BREAKOUT))
    x, y = ball.T
    open_field = np.flatnonzero((y > 30.0) & (y < 53.0) & (x > 5.0) & (x < 58.0))

    def contrast(frames):
        column, row = ball[open_field].round().astype(int).T
        around = [frames[open_field, row + down, column + right, 0] for down in (-1, 0, 1) for right in (-1, 0, 1)]
        return np.max(around, axis=0) / 200

    assert len(open_field) > 60
    assert contrast(rally.frames).min() == pytest.approx(0.53, abs=0.005)  # the texts quote these
    assert contrast(old.frames).min() == pytest.approx(0.25, abs=0.005)


def test_no_frame_of_a_rally_loses_the_ball(rally):
    """In the open field between bricks, paddle and walls, RAM and pixels agree on the ball in every frame."""
    remembered, seen = ball_position(rally.ram, BREAKOUT), detect_ball(rally.frames, BREAKOUT)
    x, y = remembered.T
    open_field = (y > 30.0) & (y < 53.0) & (x > 5.0) & (x < 58.0)
    assert open_field.sum() > 60
    error = np.abs(remembered - seen)[open_field].max(axis=1)
    assert not np.isnan(error).any()
    assert np.median(error) < 0.5 and error.max() < 1.5  # pixels


def test_the_paddle_is_where_ram_says(rally):
    """A moving paddle is drawn one emulator frame after RAM is updated, up to 2.5 pixels behind; at rest they agree."""
    error = detect_player(rally.frames, BREAKOUT) - player_position(rally.ram, BREAKOUT)
    assert np.median(np.abs(error)) <= 1.2 and np.abs(error).max() < 2.9
    at_rest = np.abs(np.diff(player_position(rally.ram, BREAKOUT), prepend=np.nan)) == 0.0
    assert np.abs(error[at_rest]).mean() < 0.2  # a pixel that it half covers looks fuller than half


def test_the_frame_that_carries_right_is_the_frame_in_which_the_paddle_moves_right(breakout):
    """Single presses between rests: the picture delay makes one movement belong to one action, at the same index."""
    noop, right, left = (breakout.action_names.index(name) for name in ("NOOP", "RIGHT", "LEFT"))
    pressed = [noop] * 4 + [right] + [noop] * 3 + [left] + [noop] * 3 + [left] + [noop] * 3
    episode = record_episode(breakout, replay(pressed), len(pressed) + 1, seed=0)
    assert episode.actions.tolist() == [-1, *pressed]
    moved = np.diff(detect_player(episode.frames, BREAKOUT), prepend=np.nan)
    for action, way in ((right, 1), (left, -1)):
        assert (way * moved[episode.actions == action] > 5.0).all()  # pixels; 18 to 21 emulator pixels are 7 to 8
    assert np.nanmax(np.abs(moved[episode.actions == noop])) < 2.5  # the rest of the glide


def test_with_random_actions_most_movements_have_the_sign_of_their_own_action(breakout):
    episode = record_episode(breakout, random_policy, 120, seed=11)
    moved = np.diff(detect_player(episode.frames, BREAKOUT), prepend=np.nan)
    inside = np.abs(player_position(episode.ram, BREAKOUT) - 31.5) < 20  # away from the walls
    right = inside & (episode.actions == breakout.action_names.index("RIGHT"))
    left = inside & (episode.actions == breakout.action_names.index("LEFT"))
    assert (moved[right] > 3.0).mean() > 0.9 and (moved[left] < -3.0).mean() > 0.9


@pytest.mark.parametrize("is_cut", [False, True])
def test_a_reward_belongs_to_the_first_picture_after_it_and_the_last_frame_stands_for_the_end(is_cut):
    """Pictures after 1, 5 and 9 emulator frames: the second is paid 2 + 3 + 4 + 5, the third 6 + 7 + 8 + 9. The game ends one
    emulator frame later, whose 10 no picture shows."""
    game = Game(f"Pays{is_cut}-v0", frame_size=(32, 32), picture_delay=1, merged_frames=1)
    arrays = record_episode(game, replay([0] * 9), 9, seed=0).arrays
    assert arrays["rewards"].tolist() == [0, 14, 30 + 10] and arrays["ends"].tolist() == [False, False, not is_cut]
    arrays = record_episode(game, replay([0] * 9), 2, seed=0).arrays  # cut by the recorder, two emulator frames before the end
    assert arrays["rewards"].tolist() == [0, 14] and arrays["ends"].tolist() == [False, False]


def test_a_game_that_the_emulator_cuts_has_no_end_and_the_next_one_begins_with_all_lives(breakout, monkeypatch):
    """Breakout is cut after 108,000 emulator frames; here the emulator is told to cut it after 240."""
    make = gymnasium.make
    monkeypatch.setattr(gymnasium, "make", lambda *args, **flags: make(*args, max_num_frames_per_episode=240, **flags))
    cut = record_episode(Game(BREAKOUT), replay([0] * 99), 99, seed=0)
    assert len(cut.frames) < 99 and not cut.arrays["ends"].any()
    breakout.reset(0)
    for action in ([1] + [0] * 39) * 2:
        breakout.step(action)
    assert breakout.lives < 5
    breakout.reset(next(seed for seed in range(99) if np.random.default_rng(seed).integers(MAX_NOOP_STEPS + 1) == 0))
    assert breakout.lives_in_picture == 5


def test_a_brick_is_gone_from_the_frame_that_was_paid_for_it_and_a_lost_ball_costs_a_life(breakout, rally):
    """Bricks fill rows 17 to 27 of the frame, and where one was hit, two or three of their pixels are black from then on."""
    black = (rally.frames[:, 17:28].max(axis=-1) < 40).sum(axis=(1, 2))  # (F,)
    paid = np.flatnonzero(rally.arrays["rewards"])
    assert rally.arrays["rewards"][paid].tolist() == [1.0] * 5  # one point for each brick of the lower rows
    assert (black[paid] >= black[paid - 1] + 2).all() and black[paid[0] - 1] == 0
    lost = record_episode(breakout, replay(([1] + [0] * 39) * 3), 120, seed=0).arrays["lives"]
    assert lost[0] == 5 and lost[-1] < 5 and np.diff(lost.astype(int)).min() == -1


class Listened(Game):
    """A game that keeps the screen and the sound of every emulator frame."""

    def reset(self, seed: int) -> None:
        self.screens, self.chunks = [], []
        super().reset(seed)

    def advance(self, action: int) -> None:
        super().advance(action)
        assert self._ale is not None
        self.screens.append(self.screen())
        self.chunks.append(self._ale.getAudio())


def test_the_sound_of_a_frame_is_that_of_the_emulator_frames_up_to_its_picture():
    """Pictures are taken one emulator frame after each step, so a frame has the sound of the last three emulator frames of its
    step and of the first one of the next. (A second game would not do: the same seed repeats the sounds, but not the phase of
    their waves.)"""
    game = Listened(BREAKOUT, sound=True)
    episode = record_episode(game, replay([1, 2, 2, 3] * 8), 32, seed=3)
    unrecorded = len(game.chunks) - 4 * 32  # emulator frames of the NOOPs before the first frame
    assert unrecorded >= 4
    for number, (frame, sound) in enumerate(zip(episode.frames, episode.arrays["sound"], strict=True)):
        last = unrecorded + 4 * number  # the emulator frame of the picture
        assert np.array_equal(frame, resize_by_area(game.screens[last], (64, 64), True))
        assert np.array_equal(sound, np.concatenate(game.chunks[last - 3 : last + 1]))
    assert (episode.arrays["sound"].std(axis=1) > 0).any() and (episode.arrays["sound"] == 128).mean() > 0.5


def test_the_sound_of_a_game_without_any_is_refused():
    with pytest.raises(InputError, match="CartPole-v1 has no sound"):
        Game("CartPole-v1", sound=True)


def test_an_episode_repeats_from_its_seed_and_its_actions(breakout, rally):
    again = record_episode(breakout, replay(rally.actions[1:]), 200, seed=3)
    assert np.array_equal(again.frames, rally.frames) and np.array_equal(again.actions, rally.actions)


def test_fire_is_pressed_at_the_start_and_after_a_lost_life_and_stored_as_fire(breakout):
    """A player that never moves loses ball after ball. Without FIRE there would be no next one."""
    asked = make_players("random", breakout)["random"]

    def fire_or_rest(game, rng):
        return asked(game, rng) if game.needs_fire else 0

    episode = record_episode(breakout, fire_or_rest, 120, seed=0)
    fire = np.flatnonzero(episode.actions == breakout.action_names.index("FIRE"))
    assert fire[0] == 1 and len(fire) >= 3
    present = ~np.isnan(ball_position(episode.ram, BREAKOUT)[:, 0])
    assert present[fire[:-1] + 1].all()  # the ball is back one frame after each FIRE
    assert present.mean() > 0.6  # it takes a moment from losing the ball to losing the life


def test_random_play_is_uniform_and_independent_of_the_step_before(breakout):
    episodes = [record_episode(breakout, random_policy, 300, seed) for seed in range(8)]
    actions = np.concatenate([episode.actions[2:] for episode in episodes])
    shares = np.bincount(actions, minlength=4) / len(actions)
    assert shares.min() > 0.18 and shares.max() < 0.32
    before = np.concatenate([episode.actions[1:-1] for episode in episodes])
    assert (actions == before).mean() == pytest.approx(0.25, abs=0.05)


def test_mixed_records_as_many_frames_of_each_player():
    players = MixedPolicy({"random": random_policy, "scripted": random_policy})
    order = []
    for length in (100, 700, 200, 300, 150):
        name, _ = players.next_player()
        players.num_frames[name] += length
        order.append(name)
    assert order == ["random", "scripted", "random", "random", "random"]


def test_a_scripted_player_exists_only_where_the_ball_is_known(breakout):
    boxing = Game("ALE/Boxing-v5")
    with pytest.raises(InputError, match="no scripted player for ALE/Boxing-v5, only for ALE/Breakout-v5, ALE/Pong-v5"):
        make_players("scripted", boxing)
    assert list(make_players("mixed", boxing)) == ["random"]
    assert list(make_players("mixed", breakout)) == ["random", "scripted"]


def test_a_wandering_chicken_comes_to_places_that_random_play_never_sees():
    game = Game("ALE/Freeway-v5")

    def rows_of(policy):
        episodes = [record_episode(game, policy, 800, seed) for seed in range(2)]
        return player_position(np.concatenate([episode.ram for episode in episodes]), game.env_id)

    assert rows_of(random_policy).min() > 32  # of 64 rows, the first at the top
    rows = rows_of(make_players("wandering", game)["wandering"])
    assert rows.min() < 16 and (rows < 32).mean() > 0.1
    with pytest.raises(InputError, match=r"the player of ALE/MsPacman-v5 is not known, only those of .*Freeway.*; use --policy"):
        make_players("wandering", Game("ALE/MsPacman-v5"))


def test_a_wandering_player_plays_alike_in_pictures_of_every_size():
    games = [Game("ALE/Freeway-v5", size) for size in ((64, 64), (32, 32), (210, 160))]
    plays = [record_episode(game, make_players("wandering", game)["wandering"], 200, seed=0).actions for game in games]
    assert np.array_equal(plays[0], plays[1]) and np.array_equal(plays[0], plays[2])


@pytest.mark.parametrize("env_id", [env_id for env_id, facts in GAMES.items() if facts.player is not None])
def test_the_player_is_found_in_every_game_that_claims_it(env_id):
    game = Game(env_id)
    episode = record_episode(game, random_policy, 100, seed=2)
    error = np.abs(detect_player(episode.frames, env_id) - player_position(episode.ram, env_id))
    assert np.median(error) < 1.2 and not np.isnan(error).any()


def test_the_chicken_is_told_from_the_cars_and_missed_where_there_is_none():
    game = Game("ALE/Freeway-v5")
    episode = record_episode(game, make_players("wandering", game)["wandering"], 800, seed=3)
    place, frames = player_position(episode.ram, game.env_id), episode.frames
    off = np.abs(detect_player(frames, game.env_id) - place) > 1.5
    assert off.mean() < 0.02
    swept = frames[place > 57]
    swept[:, 54:] = swept[:, 54:, :1]  # of the sidewalk where it stands
    assert len(swept) > 30 and np.isfinite(detect_player(swept, game.env_id)).mean() < 0.1


def test_a_blank_screen_holds_no_player_and_no_ball():
    blank = np.zeros((2, 64, 64, 3), dtype=np.uint8)
    assert np.isnan(detect_player(blank, BREAKOUT)).all()
    assert np.isnan(detect_ball(blank, BREAKOUT)).all()


def test_any_environment_with_discrete_actions_and_rgb_pictures_can_be_recorded():
    """Action 1 moves the square of PromptSquare by 4 pixels per step of 4 frames, at once."""
    game = Game("PromptSquare-v0", frame_size=(32, 32))
    episode = record_episode(game, replay([1, 0, 2, 2]), 5, seed=0)
    columns = np.arange(32) @ episode.frames[:, 16, :, 0].astype(float).T / episode.frames[:, 16, :, 0].sum(axis=1)
    assert np.diff(columns).tolist() == [3.5, 0.5, -3.5, -4.0]  # two merged frames lie half a pixel behind a moving square
    assert episode.ram is None and game.frames_per_second == 10.0


@pytest.mark.parametrize("env_id", ["ALE/Breakout-v5", "ALE/Boxing-v5", "ALE/Freeway-v5"])  # Pong reveals a little: see GAMES
def test_a_picture_never_betrays_the_action_after_it(env_id):
    """A paddle one pixel ahead of its key would teach the dynamics model to read the next key from the picture.

    Two games differ only in their last action. The picture that closes the step before is the same, the next one is not.
    """
    game, rng, differ = Game(env_id), np.random.default_rng(0), 0
    ways = [game.action_names.index(key) for key in GAMES[env_id].player_keys]
    for trial in range(6):
        beginning = rng.integers(game.num_actions, size=30 + trial).tolist()
        first, second = (record_episode(game, replay([*beginning, way, way]), len(beginning) + 2, seed=trial) for way in ways)
        assert np.array_equal(first.frames[:-1], second.frames[:-1])
        differ += not np.array_equal(first.frames[-1], second.frames[-1])
    assert differ >= 4  # fewer than 6: at a wall, one of the keys has no effect


def test_the_delay_of_an_unknown_game_is_measured_by_playing_it_twice():
    """The square answers 0 or 1 frames late, so one frame into the next step is too late or just in time."""
    prompt = calibrate_picture_delay("PromptSquare-v0", num_moments=8)
    slow = calibrate_picture_delay("SlowSquare-v0", num_moments=8)
    assert prompt.best == 0 and slow.best == 1
    assert prompt.revealed[0] == 0 and prompt.revealed[1] == 1 and slow.revealed[1] == 0 and slow.revealed[2] == 1
    assert "picture delay 1" in slow.describe() and not slow.flickers


def test_the_delay_stays_within_the_step_and_rare_events_do_not_decide_it():
    assert MeasuredDelay([0.0, 0.04, 0.7, 0.7], flicker=0.0).best == 1
    assert MeasuredDelay([0.0] * 7 + [1.0], flicker=0.0).best == 3
    assert MeasuredDelay([0.5, 0.5, 0.5, 0.5], flicker=0.0).best == 0  # a game that is not deterministic cannot be compared


def test_a_game_that_shows_no_action_gets_no_delay():
    assert MeasuredDelay([0.0] * 8, flicker=0.0).best == 0


def test_a_game_that_draws_its_sprites_in_turn_is_filmed_as_the_brighter_of_two_frames():
    """Ms Pac-Man shows a ghost in every other frame or so. The maximum of two frames shows what either of them shows."""
    facts = game_facts("ALE/MsPacman-v5")
    assert facts is not None and facts.flickers and Game("ALE/MsPacman-v5").merged_frames == 2
    assert MeasuredDelay([0.0], flicker=0.38).flickers and not MeasuredDelay([0.0], flicker=0.12).flickers
    actions = replay([0] * 80)
    merged, single = (record_episode(Game("ALE/MsPacman-v5", merged_frames=m), actions, 80, seed=1).frames for m in (2, 1))
    assert (merged >= single).all() and (merged > single).any()


def test_the_command_records_a_store_and_says_what_is_in_it(tmp_path, capsys):
    output = tmp_path / "breakout"
    flags = ("--num-frames", "150", "--output", str(output), "--seed", "5")
    assert call(RECORD, *flags, "--video", str(tmp_path / "videos")) == 0
    said = capsys.readouterr().out
    assert "recorded 150 frames in" in said and "RIGHT" in said and "MiB" in said
    store = open_clip_store(output)
    facts = game_facts(BREAKOUT)
    assert len(store.frames) == 150 and store.frame_size == (64, 64) and store.env_id == BREAKOUT
    assert facts is not None and store.info["picture_delay"] == facts.picture_delay and store.info["merged_frames"] == 1
    assert store.linear_light and store.info["linear_light"] is True
    assert store.action_names == ["NOOP", "FIRE", "RIGHT", "LEFT"] and store.frames_per_second == 15.0
    assert len(list((tmp_path / "videos").glob("*.mp4"))) == len(store.episodes) == len(store.info["episode_players"])
    films = open_clips_source(tmp_path / "videos", frame_size=(64, 64), fit="stretch")
    assert np.array_equal(films.episodes, store.episodes) and films.frames_per_second == 15.0 and films.num_actions == 0
    balls = detect_ball(store.frames, BREAKOUT)[:, 0], detect_ball(films.frames, BREAKOUT)[:, 0]
    assert np.isfinite(balls[0]).sum() > 30 and np.mean(np.isfinite(balls[0]) == np.isfinite(balls[1])) > 0.95

    assert call(RECORD, *flags) == 2 and "already exists" in capsys.readouterr().err
    assert call(RECORD, *flags, "--overwrite", "--sound") == 0
    again = open_clip_store(output)
    assert again.fingerprint == store.fingerprint  # the same seed records the same frames
    assert again.array("sound").shape == (150, 4 * 512) and "sound" not in store.arrays


@pytest.mark.parametrize("linear", [True, False])
def test_a_complete_player_is_not_distorted_and_a_torn_one_is(linear):
    """Breakout's paddle, 16 screen pixels wide: complete, without its right half, absent, and drawn twice."""

    def distortion_of(screens):
        return player_distortion(np.stack([resize_by_area(screen, (64, 64), linear) for screen in screens]), BREAKOUT, linear)

    whole = np.zeros((3, 210, 160, 3), np.uint8)
    whole[:2, 189:193, 60:76] = (200, 72, 72)
    whole[1, 189:193, 68:76] = 0
    distortion = distortion_of(whole)
    assert distortion[0] < 0.01 and distortion[2] == pytest.approx(1.0)
    assert distortion[1] < 0.01  # half a paddle is the short one of harder levels
    torn = whole[:1].copy()
    torn[0, 189:193, 84:100] = (200, 72, 72)  # and once more further right
    assert distortion_of(torn)[0] > 0.5
    with pytest.raises(InputError, match="changes its shape"):
        player_distortion(np.zeros((1, 64, 64, 3), np.uint8), "ALE/Boxing-v5")


@pytest.mark.parametrize("env_id", ["ALE/Breakout-v5", "ALE/Freeway-v5"])
def test_a_new_game_is_that_of_an_emulator_that_has_just_loaded_it(env_id):
    """Whatever was played before. Freeway's own reset does not promise that."""
    used, fresh = Game(env_id, (32, 32)), Game(env_id, (32, 32))
    record_episode(used, random_policy, 77, seed=1)
    again, first = (record_episode(game, random_policy, 40, seed=2) for game in (used, fresh))
    assert np.array_equal(again.frames, first.frames) and np.array_equal(again.ram, first.ram)
