"""Learn what a game pays from a short recording, train an agent on it in rollouts of a world only, and test it in the emulator.

    python 4.inference/uses/imagination/train.py --json assets/4.inference/imagination.json

Plays the games of the recording itself. Needs the extra: pip install -e ".[agent]"
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from dynamics_model.data.frame_cache import encode_store
from uses.imagination.dreams import DreamedGames, Prompts
from uses.imagination.reward_head import EVENTS, RewardHead, events, head_scores, probabilities, targets, train_head
from uses.imagination.wall import check_has_a_wall, for_nothing, hits, near
from video_tokenizer.data.clip_store import ClipStore, open_clip_store
from video_tokenizer.errors import InputError
from video_tokenizer.figures import image_grid, save_picture
from video_tokenizer.training.command_line import check_smallest, parse_config, run_script
from video_tokenizer.training.results import format_table, save_json, settings_of
from world_model.ball_game import BallGame, three_keys
from world_model.evaluation.games import check_seed, record_games
from world_model.real_game import open_game
from world_model.scored_games import baselines, open_scored_game, play
from world_model.world import WorldModel

GAMES_TO_LEARN, GAMES_HELD_OUT = 3_000, 4_000
"""offsets of the games that are recorded here from the first evaluation game"""
SHOWN = 4
"""payments for nothing in the picture"""


@dataclass(frozen=True)
class ImaginationConfig:
    """Learn rewards from a recording, learn to play in imagination, and test it in the emulator."""

    world: str = "assets/worlds/breakout"
    """folder of a world of Breakout"""
    data_path: str | None = None
    """clip store of the world's game to learn the rewards from; default: games that are played now"""
    num_games: int = 80
    """games to learn from; a fifth as many others are held out to score the head"""
    game_frames: int = 400
    """most frames of each"""
    head_steps: int = 1_200
    """optimizer steps of the reward head"""
    num_steps: int = 10_000
    """dreamed frames in which the agent practices"""
    num_rollouts: int = 64
    """rollouts side by side"""
    rollout_steps: int = 48
    """frames of a rollout; longer ones drift away"""
    decoding_steps: int = 1
    """decoding passes of the world for each frame; more are slower"""
    test_games: int = 10
    """games of the emulator for each player, from random starts and with sticky keys"""
    test_steps: int = 1_000
    """maximum length of such a game, in frames"""
    seeds: tuple[int, ...] = (0, 1, 2)
    """a head and an agent are trained for each, and all play the same test games"""
    json: str | None = None
    """file for the numbers"""
    picture: str | None = None
    """file for a picture of dreamed frames that were paid for nothing"""

    def check(self) -> None:
        """Raise InputError for numbers out of range."""
        least = {"num_games": 5, "game_frames": 64, "head_steps": 1, "num_steps": 1, "num_rollouts": 1, "rollout_steps": 4}
        check_smallest(self, least | {"decoding_steps": 1, "test_games": 1, "test_steps": 1})
        if not self.seeds:
            raise InputError("--seeds is empty; give at least one number, such as --seeds 0")
        for seed in self.seeds:
            check_seed(seed)


class Recording:
    """A clip store with rewards, and its tokens."""

    def __init__(self, store: ClipStore, world: WorldModel):
        self.store, self.happened = store, events(store)
        self.tokens = encode_store(store, world.tokenizer, world.device, world.precision, type(world.dynamics))

    def prompts(self, world: WorldModel) -> Prompts:
        """Every fourth stretch of as many frames as the world looks back, if no life is lost in it."""
        length = world.context_frames
        starts = np.concatenate([np.arange(start, stop - length + 1, 4) for start, stop in self.store.episodes])
        places = starts[:, None] + np.arange(length)  # (S, T)
        places = places[~self.happened[places, 1].any(axis=1)]
        actions = self.store.actions[places].astype(np.int64) if world.action_kind == "true" else None
        return Prompts(self.store.frames[places], actions, self.tokens[places])


class Dream(NamedTuple):
    """B rollouts of T frames under one player."""

    frames: np.ndarray
    """(T, B, H, W, 3) uint8"""
    paid: np.ndarray
    """(T, B), the head's probability"""


def open_recordings(config: ImaginationConfig, world: WorldModel, env_id: str) -> tuple[Recording, Recording]:
    """To learn from, and held out."""
    learned = None if config.data_path is None else open_clip_store(config.data_path)
    game = open_game(env_id, world.metadata, world.frame_size)
    if learned is None:
        learned = record_games(game, config.num_games, config.game_frames, 0, first_game=GAMES_TO_LEARN).store
    held_out = record_games(game, config.num_games // 5, config.game_frames, 0, first_game=GAMES_HELD_OUT).store
    game.close()
    return Recording(learned, world), Recording(held_out, world)


def learn_rewards(config: ImaginationConfig, seed: int, world: WorldModel, learned: Recording) -> RewardHead:
    """A head that was trained on a recording."""
    torch.manual_seed(seed)
    assert world.tokenizer.codebook_size is not None, "MaskGIT's worlds have tokens"
    codes = world.tokenizer.indices_to_codes(torch.arange(world.tokenizer.codebook_size)[None, None])[0, 0]  # (K, D)
    head = RewardHead(codes, world.tokenizer.grid_size)
    wanted = targets(learned.happened, learned.store.episodes)
    train_head(head, learned.tokens, wanted, learned.store.episodes, config.head_steps, seed)
    return head


def dream(games: DreamedGames, num_steps: int, agent: Any = None) -> Dream:
    """Let an agent play dreamed games, or random keys."""
    step, frames, paid = games.reset(), [], []
    for _ in range(num_steps):
        random = games.rng.integers(len(games.keys), size=games.num_games)
        step = games.step(random if agent is None else agent.predict(step.features, deterministic=True)[0])
        frames.append(games.frames)
        paid.append(step.paid)
    return Dream(np.stack(frames), np.stack(paid))


def audit(paid: np.ndarray, happened: np.ndarray) -> dict[str, float]:
    """What a head paid (T, B), and what was hit (T, B): both per 100 frames, and the share of the pay that was for nothing."""
    return {"paid": 100 * float(paid.mean()), "hits": 100 * float(happened.mean()), "for_nothing": for_nothing(paid, happened)}


def audits(
    config: ImaginationConfig, head: RewardHead, held_out: Recording, games: DreamedGames, agent: Any
) -> tuple[dict[str, dict[str, float]], Dream]:
    """The head's pay in real games, checked with the truth and as dreams have to be checked, and in dreams."""
    paid = probabilities(head, held_out.tokens, held_out.store.episodes)[:, :1]  # (F, 1)
    seen = hits(held_out.store.frames[:, None])
    played, random = dream(games, config.rollout_steps, agent), dream(games, config.rollout_steps)
    return {
        "real": audit(paid, held_out.happened[:, :1]),
        "real_by_picture": audit(paid, seen),
        "dream_of_random_keys": audit(random.paid, hits(random.frames)),
        "dream_of_the_agent": audit(played.paid, hits(played.frames)),
    }, played


def save_payments(path: str, played: Dream) -> None:
    """The highest payments for nothing, one of a rollout at most: the frame before, the frame that was paid, the one after."""
    unfounded = np.where(near(hits(played.frames)), 0.0, played.paid)[1:-1]  # (T - 2, B)
    times = unfounded.argmax(axis=0) + 1  # (B,)
    rollouts = unfounded.max(axis=0).argsort()[::-1][:SHOWN]
    rows = [(f"paid {played.paid[times[b], b]:.2f}", played.frames[times[b] - 1 : times[b] + 2, b]) for b in rollouts]
    save_picture(path, image_grid(rows, "", ["one frame earlier", "paid for this frame", "one frame later"]), 64)


def run_seed(
    config: ImaginationConfig, seed: int, world: WorldModel, recordings: tuple[Recording, Recording], real: BallGame
) -> tuple[dict[str, Any], Dream]:
    """Head, agent, test. Returns what goes into the file, and a dream of the agent."""
    from uses.imagination.agent import Awake, DreamedVecEnv, train_agent

    learned, held_out = recordings
    head = learn_rewards(config, seed, world, learned)
    scores = head_scores(probabilities(head, held_out.tokens, held_out.store.episodes), held_out.happened)
    print(format_table(scores), flush=True)

    keys = three_keys(real.env_id, world.action_map)
    games = DreamedGames(world, head, learned.prompts(world), keys, config.num_rollouts, seed)
    agent = train_agent(DreamedVecEnv(games, config.rollout_steps), config.num_steps, seed)
    unseen = DreamedGames(world, head, held_out.prompts(world), keys, config.num_rollouts, seed)
    checked, played = audits(config, head, held_out, unseen, agent)
    ledger = {"frames": 0.0, "believed": 0.0, "paid": 0.0}
    tested = play(lambda _: Awake(agent, world, head, real, ledger), real, config.test_games, 0, "learned rewards")
    believed, paid = (100 * ledger[name] / ledger["frames"] for name in ("believed", "paid"))
    checked["emulator_of_the_agent"] = {"paid": believed, "hits": paid}
    print(format_table(checked), format_table({"learned rewards": tested}), sep="\n", flush=True)
    return {"head": scores, "audits": checked, "agent": tested}, played


def over_seeds(results: list[Any]) -> Any:
    """The means of nested dictionaries of numbers with the same keys, with "_" for spaces; for an "auc" the lowest as well."""
    if not isinstance(results[0], dict):
        return float(np.mean(results))
    means = {name.replace(" ", "_"): over_seeds([result[name] for result in results]) for name in results[0]}
    for name in ("auc", "score"):
        if name in means:
            means[f"lowest_{name}"] = float(min(result[name] for result in results))
    return means


def main() -> None:
    config = parse_config(ImaginationConfig)
    config.check()
    try:
        import stable_baselines3  # noqa: F401
    except ModuleNotFoundError:
        raise InputError('stable-baselines3 is not installed; install the extra: pip install -e ".[agent]"') from None
    world = WorldModel.load(config.world, "cpu", num_steps=config.decoding_steps)
    real = open_scored_game(world, None, config.test_steps)
    check_has_a_wall(real.env_id)
    recordings = open_recordings(config, world, real.env_id)
    shares = ", ".join(f"{share:.1%} {event}" for event, share in zip(EVENTS, recordings[0].happened.mean(axis=0), strict=True))
    print(f"{len(recordings[0].tokens):,} frames to learn rewards from, {shares}; {len(recordings[1].tokens):,} held out")
    results = []
    for seed in config.seeds:
        result, played = run_seed(config, seed, world, recordings, real)
        results.append(result)
        if config.picture and seed == config.seeds[0]:
            save_payments(config.picture, played)
    players = {name: play(player, real, config.test_games, 0, name) for name, player in baselines().items()}
    print(format_table(players))
    if config.json:
        num_frames = len(recordings[0].tokens), len(recordings[1].tokens)
        facts = settings_of(config, "json", "picture", "data_path") | {"num_frames": num_frames, "by_seed": results}
        save_json(config.json, facts | {"over_seeds": over_seeds(results), "baselines": over_seeds([players])})


if __name__ == "__main__":
    run_script(main)
