"""Record a game into a clip store.

    python 1.video-tokenizer/record.py --env ALE/Breakout-v5 --num-frames 40000 --output data/breakout

Works with any Gymnasium environment that has discrete actions and renders RGB pictures. Atari games come with ale-py and need no
download. `--video FOLDER` also writes each episode as an .mp4 file of the screen's own size, one video frame per recorded frame.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from video_tokenizer.data.clip_store import ClipStoreWriter
from video_tokenizer.data.video_files import VIDEO_ENDINGS, resize_by_area, write_video
from video_tokenizer.errors import InputError
from video_tokenizer.games.detectors import game_facts
from video_tokenizer.games.emulator import Game, record_episode, short_name, usual_frame_skip
from video_tokenizer.games.picture_delay import calibrate_picture_delay
from video_tokenizer.games.policies import MixedPolicy, make_players
from video_tokenizer.training.command_line import check_smallest, parse_config, run_script
from video_tokenizer.training.config import height_and_width, size_text

SHORTEST_EPISODE = 64  # frames; a small recording is split into about ten episodes, but not into shorter ones than this


@dataclass(frozen=True)
class RecordConfig:
    """Record a game into a clip store."""

    env: str = "ALE/Breakout-v5"
    """Gymnasium id of the game, for example ALE/Pong-v5, ALE/Boxing-v5, ALE/Freeway-v5, ALE/MsPacman-v5 or CartPole-v1; a game of
    another package as package:id, such as minigrid:MiniGrid-Empty-8x8-v0"""
    num_frames: int = 40_000
    """frames to record, over all episodes"""
    output: str | None = None
    """folder of the clip store; default data/<game>"""
    policy: str = "mixed"
    """who plays: random (a new action every step), scripted (follows the ball; Breakout, Pong), mixed (half and half), or
    wandering (from one random place to the next, two thirds of the keys at random; games whose player we can find, as Freeway)"""
    frame_size: int | tuple[int, int] = 64
    """side of square frames in pixels, or height and width, as in 72 128; the whole screen is shown, whatever its shape"""
    frame_skip: int | None = None
    """emulator frames per recorded frame, during which the action is held; default: 4 for the Atari, for other games as many as
    make 15 recorded frames a second, and fewer where games are short"""
    picture_delay: str = "auto"
    """emulator frames into the next step at which a picture is taken, less than frame-skip; auto: the known or measured delay"""
    linear_light: bool = True
    """shrink frames by averaging light; --no-linear-light averages sRGB values, as for the world of Freeway"""
    sound: bool = False
    """also keep the sound of an Atari game, 512 samples for each emulator frame; a sixth more to store. It is
    written last, so 40,000 frames need 82 MB of memory for it"""
    episode_frames: int = 1000
    """longest episode, in recorded frames; small recordings use a tenth of num-frames, so that they have episodes to split"""
    seed: int = 0
    """seed of the games and the policy: the same seed records the same frames"""
    video: str | None = None
    """folder for a copy of every episode as an .mp4 file, without the keys, in the screen's own size; 7 ms more for each frame"""
    overwrite: bool = False
    """replace the output if it is a clip store"""


def check(config: RecordConfig) -> None:
    """Raise InputError for an invalid flag before anything is played."""
    check_smallest(config, {"num_frames": 2, "frame_skip": 1, "episode_frames": 2, "seed": 0})
    if min(size := height_and_width(config.frame_size)) < 8:
        raise InputError(f"--frame-size {size_text(size)} is too small; give at least 8")
    if config.video is not None and Path(config.video).suffix.lower() in VIDEO_ENDINGS:
        raise InputError(
            f"--video {config.video} is the name of a film; give a folder, into which one film an episode is written"
        )
    delays = [str(delay) for delay in range(config.frame_skip or 4)]
    if config.picture_delay not in ["auto", *delays]:
        raise InputError(
            f"--picture-delay {config.picture_delay!r} is neither auto nor a number from 0 to frame-skip - 1, "
            f"which is {len(delays) - 1}"
        )


def calibrate(config: RecordConfig, game: Game) -> None:
    """Measure the picture delay and whether to merge frames, unless the flag or the known game says it."""
    facts = game_facts(config.env)
    if config.picture_delay == "auto" and (facts is None or facts.picture_delay >= game.frame_skip):
        print(f"measuring the delay after which {config.env} shows an action ...")
        measured = calibrate_picture_delay(config.env, frame_skip=game.frame_skip, seed=config.seed)
        print(measured.describe())
        game.picture_delay, game.merged_frames = measured.best, 2 if measured.flickers else 1


def record(config: RecordConfig, game: Game, players: MixedPolicy, writer: ClipStoreWriter) -> InputError | None:
    """Play and write episodes until num_frames are recorded. If the game fails, the complete episodes before that are written."""
    if config.policy == "mixed" and len(players.players) == 1:
        print(f"there is no scripted player for {config.env}: all episodes are random play")
    episode_frames = min(config.episode_frames, max(config.num_frames // 10, SHORTEST_EPISODE))
    names: list[str] = []
    failure = None
    if config.video is not None:  # codecs halve the resolution of color, so that a film of small frames would lose the ball
        game.reset(config.seed)
        game.frame_size = game.screen().shape[:2]
    with tqdm(total=config.num_frames, unit="frame", desc="recording", disable=None) as progress:
        while writer.num_frames < config.num_frames:
            name, policy = players.next_player()
            wanted = min(episode_frames, config.num_frames - writer.num_frames)
            try:
                episode = record_episode(game, policy, wanted, seed=config.seed * 100_000 + len(names))
            except InputError as error:
                if not names:
                    raise
                failure = InputError(
                    f"{error}; the {len(names)} complete episodes before it, {writer.num_frames:,} frames, are kept"
                )
                break
            if config.video is not None:
                film = Path(config.video) / f"episode_{len(names):04d}.mp4"
                write_video(film, episode.frames, game.frames_per_second, codec="vp09")
            frames = np.stack([resize_by_area(frame, writer.frame_size, game.linear_light) for frame in episode.frames])
            writer.add_episode(frames, episode.actions, **episode.arrays)
            players.num_frames[name] += len(episode.frames)
            names.append(name)
            progress.update(len(episode.frames))
    writer.info["episode_players"] = names
    return failure


def describe(path: Path, action_names: list[str], seconds: float) -> str:
    """The last line printed: frames, episodes, share of each action, size on disk, seconds."""
    actions, episodes = np.load(path / "actions.npy"), np.load(path / "episodes.npy")
    counts = np.bincount(actions[actions >= 0], minlength=len(action_names))
    shares = ", ".join(f"{name} {count / max(1, counts.sum()):.0%}" for name, count in zip(action_names, counts, strict=True))
    size = sum(file.stat().st_size for file in path.iterdir()) / 2**20
    return (
        f"recorded {len(actions):,} frames in {len(episodes)} episodes | {shares} | {size:.0f} MiB in {path} | "
        f"{seconds:.0f} s, {len(actions) / seconds:,.0f} frames/s"
    )


def main() -> None:
    config = parse_config(RecordConfig)
    check(config)
    output = Path(config.output or f"data/{short_name(config.env)}")
    frame_size = height_and_width(config.frame_size)
    given_delay = None if config.picture_delay == "auto" else int(config.picture_delay)
    frame_skip = config.frame_skip or usual_frame_skip(config.env)
    game = Game(config.env, frame_size, frame_skip, given_delay, linear_light=config.linear_light, sound=config.sound)
    info = {
        "source": "game",
        "env_id": config.env,
        "action_names": game.action_names,
        "frame_skip": game.frame_skip,
        "frames_per_second": game.frames_per_second,
        "linear_light": game.linear_light,
        "seed": config.seed,
        "policy": config.policy,
    }
    players = MixedPolicy(make_players(config.policy, game))
    writer = ClipStoreWriter(output, frame_size, info, config.overwrite)  # refuses an existing output before anything is played
    calibrate(config, game)
    writer.info |= {"picture_delay": game.picture_delay, "merged_frames": game.merged_frames}
    print(
        f"{config.env} | {config.policy} policy | picture {game.picture_delay} emulator frames after each step | writing {output}"
    )
    started = time.perf_counter()
    with writer:
        failure = record(config, game, players, writer)
    print(describe(output, game.action_names, time.perf_counter() - started))
    if failure is not None:
        raise failure


if __name__ == "__main__":
    run_script(main)
