"""Teach an agent the game of Catch without ever telling it the score: it is paid by a video model of an expert.

    python 4.inference/uses/viper/learn_catch.py --json scores/viper_catch.json

Films the expert, trains a tokenizer and video models on the films, and trains a DQN for each way of being paid. Everything is in
--output, and what is there already, made with the same flags, is used again. Needs the extra: pip install -e ".[agent]"
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from uses.viper.catch import CELLS, EPISODE, Catch, expert_action, film, film_expert
from uses.viper.films import check_made_with, run_training, train_video_model
from uses.viper.reward import FramesAlone, Payer, Stream, VideoReward
from video_tokenizer.data.clip_store import open_clip_store
from video_tokenizer.errors import InputError
from video_tokenizer.figures import image_grid, save_picture
from video_tokenizer.training.command_line import check_seeds, check_smallest, parse_config, run_script
from video_tokenizer.training.results import format_table, save_json, settings_of
from world_model.evaluation.games import check_seed

PAYMENTS = ("score", "viper", "viper_without_bonus", "frame_alone", "discriminator")
TEST_SEEDS = 1_900_000_000
"""seed of the first game of the test; no film and no training uses it"""
GAMES_AT_ONCE = 16
"""games that an agent plays at the same time while it learns, so that their frames are judged together"""
TAUGHT_FILMS = 20
"""films of the expert from which the discriminator learns"""
SHOWN = (1, 4, 7, 10, 13, 15)
"""frames of the picture, while the first ball falls"""
Choose = Callable[[Catch, np.ndarray], int]
"""game, observation -> action"""


@dataclass(frozen=True)
class CatchConfig:
    """Train agents on Catch that are paid in different ways, and compare how many balls they catch."""

    output: str = "data/viper_catch"
    """folder for films and models"""
    num_films: int = 60
    """episodes of the expert to learn from"""
    past_frames: int = 3
    """k, how many frames before it a frame is judged by"""
    tokenizer_steps: int = 400
    """optimizer steps of the tokenizer"""
    num_steps: int = 400
    """optimizer steps of each video model"""
    agent_steps: int = 20_000
    """frames that each agent plays while it learns"""
    payments: tuple[str, ...] = PAYMENTS
    """ways of being paid: score (what the game pays, for comparison), viper, viper_without_bonus, frame_alone (k = 0),
    discriminator"""
    beta: float = 1.0
    """weight of the bonus for what is new"""
    seeds: tuple[int, ...] = (0, 1, 2)
    """one agent is trained for each"""
    num_games: int = 20
    """episodes of the test"""
    json: str | None = None
    """file for the numbers"""
    picture: str | None = None
    """file for the picture of what the video model pays, a .png"""

    def check(self) -> None:
        """Raise InputError for flags that cannot work, before anything is played."""
        least = {"num_films": 4, "past_frames": 1, "tokenizer_steps": 1, "num_steps": 1, "num_games": 1, "beta": 0}
        check_smallest(self, least | {"agent_steps": GAMES_AT_ONCE})
        if self.past_frames > EPISODE:
            raise InputError(f"--past-frames {self.past_frames} is too large; an episode has {EPISODE} frames after its first")
        if unknown := [name for name in self.payments if name not in PAYMENTS]:
            raise InputError(f"--payments {unknown[0]} is not one of {', '.join(PAYMENTS)}")
        for seed in self.seeds:
            check_seed(seed, "--seeds")
        check_seeds(self, "seeds")
        if find_spec("stable_baselines3") is None:
            raise InputError('stable-baselines3 is not installed; install the extra: pip install -e ".[agent]"')


# ---- films and models ---------------------------------------------------------------------------------------------------


def make_rewards(config: CatchConfig) -> tuple[VideoReward, VideoReward]:
    """Film the expert, and train a tokenizer and two video models on the films, unless they are there.

    Returns the one that knows the past, and the one that has seen every frame alone.
    """
    folder = Path(config.output)
    check_made_with(folder, config, ("num_films", "past_frames", "tokenizer_steps", "num_steps"))
    for name in ("viper", "frame_alone"):
        if not (folder / name / "films").exists():
            film_expert(folder / name / "films", config.num_films, is_alone=name == "frame_alone")
    run = folder / "tokenizer"
    if not (run / "final_model.pt").exists():
        flags = {
            "data-path": folder / "viper" / "films", "num-steps": config.tokenizer_steps, "device": "cpu", "patch-size": 16,
            "stem": "linear", "num-blocks": 1, "context-frames": 1, "num-frames": 2,  # frames of 16 cells need no more
        }  # fmt: skip
        run_training("1.video-tokenizer/train.py", run, flags)
    for name, length in (("viper", config.past_frames + 1), ("frame_alone", 2)):
        if not (folder / name / "dynamics.pt").exists():
            sizes = {"embed_dim": 64, "num_blocks": 2}
            train_video_model(folder / name, run / "final_model.pt", length, config.num_steps, 32, 0, "cpu", **sizes)
    return VideoReward.load(folder / "viper"), VideoReward.load(folder / "frame_alone")


# ---- agents -------------------------------------------------------------------------------------------------------------


def make_games(payment: str, viper: VideoReward, frame_alone: VideoReward, config: CatchConfig) -> Any:
    """Games of Catch that are played at the same time and pay in this way."""
    from stable_baselines3.common.vec_env import DummyVecEnv

    from uses.viper.agent import Discriminator, Paid

    games = DummyVecEnv([Catch] * GAMES_AT_ONCE)
    if payment == "score":
        return games
    if payment == "discriminator":
        store = open_clip_store(Path(config.output) / "viper" / "films")
        films = [np.array(store.frames[start:stop]) for start, stop in store.episodes[:TAUGHT_FILMS]]
        return Paid(games, Discriminator(viper, films), config.beta)
    if payment == "frame_alone":
        return Paid(games, FramesAlone(frame_alone), config.beta)
    return Paid(games, Stream(viper), config.beta if payment == "viper" else 0.0)


def train_agent(games: Any, config: CatchConfig, seed: int) -> Choose:
    """What a DQN chooses after agent_steps frames, in all games together."""
    from stable_baselines3 import DQN

    agent = DQN(
        "MlpPolicy", games, learning_rate=1e-3, learning_starts=min(1_000, config.agent_steps // 4), batch_size=128, gamma=0.9,
        train_freq=1, gradient_steps=4, target_update_interval=500, exploration_fraction=0.4, exploration_final_eps=0.05,
        policy_kwargs={"net_arch": [64, 64]}, seed=seed, device="cpu",
    )  # fmt: skip
    with tqdm(total=config.agent_steps, desc="learning", unit="frame", disable=None) as bar:
        agent.learn(config.agent_steps, callback=lambda *_: bar.update(GAMES_AT_ONCE) or True)
    return lambda _, seen: int(agent.predict(seen, deterministic=True)[0])


def played(choose: Choose, num_games: int) -> tuple[list[np.ndarray], float]:
    """The films of a player in the games of the test, and how many balls it caught in one on average."""
    films, caught = zip(*[film(Catch(), choose, TEST_SEEDS + number) for number in range(num_games)], strict=True)
    return list(films), float(np.mean(caught))


def save_example(path: str, viper: VideoReward) -> None:
    """The same ball with the expert and with a player who stands still, and above each frame the reward that led to it."""
    grids = []
    for name, choose in (("expert", lambda game, _: expert_action(game)), ("standing still", lambda *_: 0)):
        frames, _ = film(Catch(), choose, TEST_SEEDS + 1)
        rewards = viper.rewards(frames[: CELLS + 1])
        labels = [f"{rewards[number - 1]:.1f} nats" for number in SHOWN]
        grids.append(image_grid([(f"{name}\n(rewards above)", frames[list(SHOWN)])], "", labels, scale=2))
    save_picture(path, np.concatenate(grids), 32)


def main() -> None:
    config = parse_config(CatchConfig)
    config.check()
    viper, frame_alone = make_rewards(config)
    payers: dict[str, Payer] = {"past_0": FramesAlone(frame_alone)}
    payers |= {f"past_{past}": Stream(VideoReward(viper.world, past)) for past in range(1, config.past_frames + 1)}
    rng = np.random.default_rng(0)
    scripts: dict[str, Choose] = {
        "expert": lambda game, _: expert_action(game),
        "random": lambda *_: int(rng.integers(3)),
        "standing_still": lambda *_: 0,
    }
    players: dict[str, dict[str, Any]] = {}
    for name, choose in scripts.items():
        films, caught = played(choose, config.num_games)
        together = np.stack(films, axis=1)  # (F, games, H, W, 3)
        players[name] = {"caught": caught}
        for payer_name, payer in payers.items():
            payer.start(together[0])
            players[name][payer_name] = float(np.mean([payer.pay(frames) for frames in together[1:]]))
    print(format_table(players))
    for payment in config.payments:
        caught = []
        for seed in config.seeds:
            torch.manual_seed(seed)
            games = make_games(payment, viper, frame_alone, config)
            caught.append(played(train_agent(games, config, seed), config.num_games)[1])
            print(f"paid by {payment}, seed {seed}: {caught[-1]:.2f} balls caught", flush=True)
        players[payment] = {"caught": float(np.mean(caught)), "lowest": min(caught), "highest": max(caught)}
    print(format_table(players))
    if config.json:
        save_json(config.json, {"settings": settings_of(config, "output", "json", "picture"), "players": players})
    if config.picture:
        save_example(config.picture, viper)


if __name__ == "__main__":
    run_script(main)
