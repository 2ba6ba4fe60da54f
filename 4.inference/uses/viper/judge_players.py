"""Film an expert, train a video model on the films, and let its likelihood judge players it has never seen.

    python 4.inference/uses/viper/judge_players.py --json scores/viper.json

Everything is in --output: the films of the expert, and the video models that are trained on them by chapter 3's script. What is
there already, made with the same flags, is used again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.stats import spearmanr
from tqdm import tqdm

from uses.viper.expert import JUDGED_SEEDS, Played, never_serves, noisy_expert, play, record_expert, stands_still
from uses.viper.films import check_made_with, train_video_model
from uses.viper.reward import FramesAlone, VideoReward, pixel_mask
from uses.viper.scores import area_under_curve, as_rows, nearest_frame_similarity, object_patches
from video_tokenizer.data.clip_store import open_clip_store
from video_tokenizer.errors import InputError
from video_tokenizer.figures import image_grid, save_picture
from video_tokenizer.games.detectors import game_facts
from video_tokenizer.games.emulator import Game, Policy, short_name
from video_tokenizer.games.policies import SCRIPTED_GAMES
from video_tokenizer.training.checkpoint import load_checkpoint
from video_tokenizer.training.command_line import check_smallest, parse_config, run_script
from video_tokenizer.training.results import format_table, save_json, settings_of
from world_model.evaluation.games import check_seed

NOISES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""shares of random actions of the players that are judged: from the expert to random play"""
EXPERT_FRAMES = 2_000
"""frames of the expert among which the baseline looks for the nearest"""
STILL_GAMES = 5
"""games of players that stand still, which hardly differ"""
IN_A_ROW = 4
"""frames that are judged together, where a single one says too little: a second of play with the defaults"""
SURPRISES = 3
"""codes of a frame that surprise the model most: of 64, these are the top 5 %"""
SHOWN, BRIGHTEST = 6, 6.0
"""frames of the picture, and the surprise in nats that is shown as bright as it gets"""


class Arm(NamedTuple):
    """What a video model learns from."""

    frame_skip: int = 4
    is_masked: bool = True
    is_alone: bool = False


ARMS = {
    "viper": Arm(),
    "frame_alone": Arm(is_alone=True),
    "with_scoreboard": Arm(is_masked=False),
    "every_emulator_frame": Arm(frame_skip=1),
}


@dataclass(frozen=True)
class JudgeConfig:
    """Train a video model on films of an expert, and judge players by its likelihood."""

    env: str = "ALE/Breakout-v5"
    """Gymnasium id of a game with a scripted player"""
    tokenizer: str | None = None
    """checkpoint of a tokenizer that knows the game; default: that of the game's reference world; nothing of it is trained"""
    output: str = "data/viper"
    """folder for films and models"""
    num_frames: int = 20_000
    """frames of the expert to learn from"""
    episode_frames: int = 250
    """frames of each of its games, in steps of four emulator frames"""
    past_frames: int = 4
    """k, how many frames before it a frame is judged by"""
    num_steps: int = 1_000
    """optimizer steps of each video model"""
    batch_size: int = 16
    """clips per step"""
    arms: tuple[str, ...] = tuple(ARMS)
    """video models to train: viper; frame_alone, which knows no past; with_scoreboard; every_emulator_frame"""
    num_games: int = 20
    """games per player that are judged"""
    game_steps: int = 200
    """frames of a judged game"""
    score_every: int = 4
    """steps between two frames that are judged"""
    seed: int = 0
    """seeds films, trainings and games"""
    json: str | None = None
    """file for the numbers"""
    picture: str | None = None
    """file for the picture of where the model is surprised, a .png"""
    device: str = "auto"
    """device of the trainings and the judge: auto (CUDA, else cpu), cpu, cuda, cuda:1, mps"""

    def check(self) -> None:
        """Raise InputError for flags that cannot work, before anything is played."""
        least = {"num_frames": 200, "episode_frames": 16, "past_frames": 1, "num_steps": 1, "num_games": 1, "score_every": 1}
        check_smallest(self, least | {"game_steps": self.past_frames + self.score_every, "batch_size": 1})
        check_seed(self.seed)
        if self.env.removeprefix("ale_py:") not in SCRIPTED_GAMES:
            raise InputError(f"--env {self.env} has no scripted player; choose {' or '.join(SCRIPTED_GAMES)}")
        if unknown := [arm for arm in self.arms if arm not in ARMS]:
            raise InputError(f"--arms {unknown[0]} is not one of {', '.join(ARMS)}")
        if "viper" not in self.arms:
            raise InputError("--arms without viper leaves nothing to compare with; add it")


# ---- films and trainings ------------------------------------------------------------------------------------------------


def tokenizer_of(config: JudgeConfig) -> str:
    """The checkpoint of the tokenizer. Raises InputError for one that lies in a world of another game."""
    path = config.tokenizer or f"assets/worlds/{short_name(config.env)}/tokenizer.pt"
    world = Path(path).with_name("dynamics.pt")
    game = load_checkpoint(world, "dynamics").get("env_id") if world.exists() else None
    if game is not None and short_name(game) != short_name(config.env):
        raise InputError(f"--tokenizer {path} is that of a world of {game}, not of {config.env}; give that of the same game")
    return path


def open_game(config: JudgeConfig, arm: Arm) -> Game:
    """The game at the frame skip of an arm, shrunk as the tokenizer's training frames were."""
    content = load_checkpoint(str(config.tokenizer), "tokenizer")
    return Game(config.env, frame_skip=arm.frame_skip, linear_light=bool(content.get("linear_light")))


def make_judge(name: str, config: JudgeConfig) -> VideoReward:
    """Film the expert and train the video model of an arm, unless both are there. Returns its reward."""
    arm, folder = ARMS[name], Path(config.output) / name
    names = ("env", "tokenizer", "num_frames", "episode_frames", "past_frames", "num_steps", "batch_size", "seed")
    check_made_with(folder, config, names)
    if not (folder / "films").exists():
        game = open_game(config, arm)
        mask = pixel_mask(config.env, game.frame_size)
        count = config.num_frames // (4 if arm.is_alone else 1)  # a frame alone says little, and costs as much
        length = config.episode_frames * 4 // arm.frame_skip
        record_expert(folder / "films", game, mask if arm.is_masked else mask**0, count, length, config.seed, arm.is_alone)
    if not (folder / "dynamics.pt").exists():
        length = 2 if arm.is_alone else config.past_frames + 1
        train_video_model(folder, str(config.tokenizer), length, config.num_steps, config.batch_size, config.seed, config.device)
    return VideoReward.load(folder, config.device, is_masked=arm.is_masked)


# ---- scores -------------------------------------------------------------------------------------------------------------

Judge = Callable[[np.ndarray, list[int]], np.ndarray]
"""frames of a game and the numbers of those to judge -> a reward for each"""


def by_reward(reward: VideoReward, encoded: dict[int, torch.Tensor] | None = None) -> Judge:
    """A video model as a judge. encoded: remembers the tokens of games, for judges that share a tokenizer and a mask."""
    known = {} if encoded is None else encoded

    def judge(frames: np.ndarray, numbers: list[int]) -> np.ndarray:
        if id(frames) not in known:
            known[id(frames)] = reward.tokens(frames)
        return reward.log_likelihoods(known[id(frames)], numbers).double().sum(dim=-1).cpu().numpy()

    return judge


def by_nearest_frame(expert: np.ndarray, mask: np.ndarray) -> Judge:
    """The similarity to the nearest frame of the expert as a judge."""
    rows = as_rows(expert)
    return lambda frames, numbers: nearest_frame_similarity(as_rows(frames[numbers] * mask), rows)


def by_memory(expert: np.ndarray, mask: np.ndarray) -> Judge:
    """Whether a frame is one of the expert's, to the last bit, as a judge: 1 or 0."""
    known = {hash(frame.tobytes()) for frame in expert}
    return lambda frames, numbers: np.array([hash(frame.tobytes()) in known for frame in frames[numbers] * mask], float)


def played(policy: Policy, game: Game, num_games: int, num_frames: int, seed: int) -> list[Played]:
    """Games of a player; players with the same seed take over from the same openings."""
    return [play(game, policy, num_frames, JUDGED_SEEDS + 1_000 * seed + number) for number in range(num_games)]


def judged(judge: Judge, games: list[Played], every: int) -> list[np.ndarray]:
    """The rewards of every so-manieth frame of each game, which may end before all steps are played."""
    numbers = [list(range(every, len(game.frames), every)) for game in games]
    games_and_numbers = zip(tqdm(games, desc="judging", leave=False, disable=None), numbers, strict=True)
    return [judge(game.frames, some) for game, some in games_and_numbers]


def tell_apart(values: dict[float, list[np.ndarray]], returns: dict[float, list[float]]) -> dict[str, float]:
    """AUC of the expert's rewards against random play's, for single frames, for the means of IN_A_ROW of them, and for those of
    games; rank correlation of games' mean rewards with their returns."""
    rewards = [game.mean() for noise in NOISES for game in values[noise]]
    paid = [one for noise in NOISES for one in returns[noise]]
    expert, random = np.concatenate(values[0.0]), np.concatenate(values[1.0])
    in_a_row = [np.concatenate([means_in_a_row(game) for game in values[noise]]) for noise in (0.0, 1.0)]
    of_games = [np.array([game.mean() for game in values[noise]]) for noise in (0.0, 1.0)]
    return {
        "auc": area_under_curve(expert, random),
        "auc_in_a_row": area_under_curve(*in_a_row),
        "auc_of_games": area_under_curve(*of_games),
        "rank_correlation": rank_correlation(rewards, paid),
        "expert": float(expert.mean()),
        "random": float(random.mean()),
        "expert_deviation": float(expert.std()),
    }


def means_in_a_row(rewards: np.ndarray) -> np.ndarray:
    """The means of every IN_A_ROW rewards (M,) in a row, which do not overlap; of all, where there are fewer."""
    if len(rewards) < IN_A_ROW:
        return rewards.mean(keepdims=True)
    return rewards[: len(rewards) // IN_A_ROW * IN_A_ROW].reshape(-1, IN_A_ROW).mean(axis=1)


def auc_of_the_keys(game: Game, config: JudgeConfig) -> float:
    """The AUC of a judge who sees the keys of random play and knows the expert's in its place: where both move the player alike,
    the frames that follow are alike, and it has to guess."""
    facts = game_facts(config.env)
    assert facts is not None, "a game with a scripted player"
    moves = [[key in name for key in facts.player_keys] for name in game.action_names]
    expert, random = noisy_expert(game, 0.0), noisy_expert(game, 1.0)
    alike: list[bool] = []

    def press(game: Game, rng: np.random.Generator) -> int:
        key = random(game, rng)
        alike.append(moves[key] == moves[expert(game, rng)])
        return key

    played(press, game, config.num_games, config.game_steps + 1, config.seed)
    return 1 - float(np.mean(alike)) / 2


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's; NaN where all are the same."""
    if min(len(set(first)), len(set(second))) < 2:
        return float("nan")
    return float(spearmanr(first, second)[0])  # type: ignore[arg-type]


def judge_players(rewards: dict[str, VideoReward], config: JudgeConfig) -> dict[str, Any]:
    """Every judge's opinion of players from the expert to random play, and which of them agree with the score of the game."""
    viper, game = rewards["viper"], open_game(config, ARMS["viper"])
    store = open_clip_store(Path(config.output) / "viper" / "films")
    some = np.linspace(0, len(store.frames) - 1, min(EXPERT_FRAMES, len(store.frames)), dtype=int)
    tokens: dict[int, torch.Tensor] = {}
    judges: dict[str, Judge] = {"viper": by_reward(viper, tokens)}
    judges["joint"] = by_reward(VideoReward(viper.world, is_joint=True), tokens)
    if "frame_alone" in rewards:
        frames_alone = FramesAlone(rewards["frame_alone"])
        judges["frame_alone"] = lambda frames, numbers: frames_alone.pay(frames[numbers])
    judges["nearest_frame"] = by_nearest_frame(np.array(store.frames[some]), viper.mask)
    judges["in_the_films"] = by_memory(store.frames, viper.mask)

    games = {
        noise: played(noisy_expert(game, noise), game, config.num_games, config.game_steps + 1, config.seed) for noise in NOISES
    }
    returns = {noise: [one.score / (len(one.frames) - 1) for one in games[noise]] for noise in NOISES}
    table, rows = {}, {f"{noise:g}": {"score": float(np.mean([one.score for one in games[noise]]))} for noise in NOISES}
    for name, judge in judges.items():
        values = {noise: judged(judge, games[noise], config.score_every) for noise in NOISES}
        table[name] = tell_apart(values, returns)
        for noise in NOISES:
            rows[f"{noise:g}"][name] = float(np.concatenate(values[noise]).mean())
    noises = [-noise for noise in NOISES for _ in games[noise]]
    print(format_table(table), format_table(rows), sep="\n")
    noise_itself = rank_correlation(noises, [one for noise in NOISES for one in returns[noise]])
    ceilings = {"rank_correlation_of_the_noise": noise_itself, "auc_of_the_keys": auc_of_the_keys(game, config)}
    print(format_table({"who sees the keys": ceilings}))
    return {"judges": table, "players": rows, **ceilings}


def edit_scoreboard(masked: VideoReward, unmasked: VideoReward, config: JudgeConfig) -> dict[str, Any]:
    """How far the rewards of the expert's games move when their scoreboard is replaced by that of a much later moment."""
    game = open_game(config, ARMS["viper"])
    expert = noisy_expert(game, 0.0)
    games = played(expert, game, config.num_games, config.game_steps + 1, config.seed)
    later = played(expert, game, 1, 10 * config.game_steps, config.seed)[0].frames[-1]
    hidden = masked.mask == 0
    edited = [one._replace(frames=np.where(hidden, later, one.frames)) for one in games]
    scores = {}
    for name, reward in (("masked", masked), ("unmasked", unmasked)):
        before, after = (np.concatenate(judged(by_reward(reward), some, config.score_every)) for some in (games, edited))
        change, deviation = float((after - before).mean()), float(before.std())
        scores[name] = {"change": change, "deviation": deviation, "change_in_deviations": change / deviation}
    print(format_table(scores))
    return scores


def stand_still(rewards: dict[str, VideoReward], config: JudgeConfig) -> dict[str, Any]:
    """The rewards of players that do nothing, compared with the expert's, at each frame skip."""
    rows: dict[str, dict[str, float]] = {}
    for name in [name for name in ("viper", "every_emulator_frame") if name in rewards]:
        game, skip = open_game(config, ARMS[name]), ARMS[name].frame_skip
        policies = {"expert": noisy_expert(game, 0.0), "stands_still": stands_still, "never_serves": never_serves}
        rows[name] = {}
        for player, policy in policies.items():
            count = min(STILL_GAMES, config.num_games)
            games = played(policy, game, count, config.game_steps * 4 // skip + 1, config.seed)
            values = judged(by_reward(rewards[name]), games, config.score_every * 4 // skip)
            rows[name][player] = float(np.concatenate(values).mean())
    print(format_table(rows))
    return rows


def surprise(reward: VideoReward, config: JudgeConfig) -> dict[str, float]:
    """The share of the most surprising codes of random play that lie on ball or player, and the share of all codes that do."""
    game, hits, area = open_game(config, ARMS["viper"]), [], []
    for one in played(noisy_expert(game, 1.0), game, config.num_games, config.game_steps + 1, config.seed):
        numbers = range(config.score_every, len(one.frames), config.score_every)
        values = reward.log_likelihoods(reward.tokens(one.frames), numbers).cpu().numpy()
        touched = object_patches(one.frames, config.env, reward.world.dynamics.grid_size)[numbers].reshape(values.shape)
        hits.append(np.take_along_axis(touched, values.argsort(axis=1)[:, :SURPRISES], axis=1).mean())
        area.append(touched.mean())
    rows = {"surprise": {"on_ball_or_player": float(np.mean(hits)), "all_codes": float(np.mean(area))}}
    print(format_table(rows))
    return rows["surprise"]


def save_heat_map(path: str, reward: VideoReward, config: JudgeConfig) -> None:
    """Frames of the expert and of random play from the same opening, and below each where the model is surprised."""
    game, rows = open_game(config, ARMS["viper"]), []
    for label, noise in (("expert", 0.0), ("random play", 1.0)):
        frames = played(noisy_expert(game, noise), game, 1, config.game_steps + 1, config.seed)[0].frames
        values = reward.log_likelihoods(reward.tokens(frames), range(1, len(frames)))
        shown = np.linspace(0, len(values) - 1, SHOWN + 1, dtype=int)[1:]
        grid = values[torch.as_tensor(shown)].unflatten(1, reward.world.dynamics.grid_size).cpu().numpy()
        heat = np.kron(np.clip(-grid / BRIGHTEST, 0, 1), np.ones((1, *(np.array(frames.shape[1:3]) // grid.shape[1:]))))
        pictures = frames[shown + 1] * reward.mask
        glow = pictures * 0.5 * (1 - heat[..., None]) + heat[..., None] * np.array([255, 220, 0])
        rows += [(label, pictures), ("surprise", glow.astype(np.uint8))]
        labels = [f"{reward_of_frame:.0f} nats" for reward_of_frame in values.sum(dim=1)[torch.as_tensor(shown)].tolist()]
        print(label, labels)
    save_picture(path, image_grid(rows, ""), 64)


def main() -> None:
    config = parse_config(JudgeConfig)
    config.check()
    config = replace(config, tokenizer=tokenizer_of(config))
    rewards = {name: make_judge(name, config) for name in config.arms}
    settings = settings_of(config, "output", "json", "picture")
    results: dict[str, Any] = {"settings": settings, **judge_players(rewards, config)}
    if "with_scoreboard" in rewards:
        results["scoreboard"] = edit_scoreboard(rewards["viper"], rewards["with_scoreboard"], config)
    results["standing_still"] = stand_still(rewards, config)
    results["surprise"] = surprise(rewards["viper"], config)
    if config.json:
        save_json(config.json, results)
    if config.picture:
        save_heat_map(config.picture, rewards["viper"], config)


if __name__ == "__main__":
    run_script(main)
