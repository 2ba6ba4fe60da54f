"""Learn what a game pays from a short recording, train an agent on it in rollouts of a world only, and test it in the emulator.

    python 4.inference/uses/imagination/train.py --json scores/imagination.json

Plays the games of the recording itself. Needs the extra: pip install -e ".[agent]"
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from dynamics_model.data.frame_cache import encode_store
from uses.imagination.dreams import DreamedGames, Prompts
from uses.imagination.reward_head import EVENTS, RewardHead, events, head_scores, probabilities, targets, train_head
from uses.imagination.wall import EDGE, audit, check_has_a_wall, hits, near
from video_tokenizer.data.clip_store import ClipStore, open_clip_store
from video_tokenizer.errors import InputError
from video_tokenizer.figures import image_grid, save_picture
from video_tokenizer.training.command_line import check_seeds, check_smallest, parse_config, run_script
from video_tokenizer.training.results import format_table, save_json, settings_of
from world_model.ball_game import BallGame, three_keys
from world_model.evaluation.games import check_seed, record_games
from world_model.real_game import open_game
from world_model.recordings import check_recording
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
    num_games: int = 200
    """games to learn from; a fifth as many others are held out to score the head"""
    game_frames: int = 400
    """most frames of each"""
    head_steps: int = 1_200
    """optimizer steps of the reward head"""
    num_steps: int = 25_000
    """dreamed frames in which the agent practices"""
    num_rollouts: int = 64
    """rollouts side by side"""
    rollout_steps: int = 48
    """frames of a rollout; longer ones drift away"""
    decoding_steps: int = 1
    """decoding passes of the world for each frame; more are slower"""
    test_games: int = 30
    """games of the emulator for each player, from random starts and with sticky keys"""
    test_steps: int = 1_000
    """maximum length of such a game, in frames"""
    seeds: tuple[int, ...] = (0, 1, 2)
    """a head and an agent are trained for each, and all play the same test games"""
    json: str | None = None
    """file for the numbers"""
    picture: str | None = None
    """file for a picture of dreamed frames that were paid for nothing, a .png"""

    def check(self) -> None:
        """Raise InputError for numbers out of range."""
        least = {"num_games": 5, "game_frames": 64, "head_steps": 1, "num_steps": 1, "num_rollouts": 1, "rollout_steps": 2 * EDGE}
        check_smallest(self, least | {"decoding_steps": 1, "test_games": 1, "test_steps": 1})
        if self.num_games > GAMES_HELD_OUT - GAMES_TO_LEARN:
            most = GAMES_HELD_OUT - GAMES_TO_LEARN
            raise InputError(
                f"--num-games {self.num_games} is too large; give at most {most}, so that no game is held out as well"
            )
        for seed in self.seeds:
            check_seed(seed, "--seeds")
        check_seeds(self, "seeds")


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
    """B rollouts under one player: the last frame of the prompt and T - 1 dreamed ones."""

    frames: np.ndarray
    """(T, B, H, W, 3) uint8"""
    paid: np.ndarray
    """(T, B), the head's probability"""


def check_paid(store: ClipStore, world: WorldModel) -> None:
    """Raise InputError for a clip store that is no recording of the world's game as the world knows it."""
    if store.env_id is None:
        raise InputError(f"{store.path} was recorded from an unknown game, not {world.metadata.env_id}; record the world's game")
    check_recording(store, world)
    if world.action_kind == "true" and store.action_names != world.action_names:
        here, there = (", ".join(names) or "none" for names in (store.action_names, world.action_names))
        raise InputError(f"{store.path} has the actions {here}, but the world was trained with {there}; record it with these")


def open_recordings(config: ImaginationConfig, world: WorldModel, env_id: str) -> tuple[Recording, Recording]:
    """To learn from, and held out."""
    learned = None if config.data_path is None else open_clip_store(config.data_path)
    if learned is not None:
        check_paid(learned, world)
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
    step = games.reset()
    frames, paid = [games.frames], [step.paid]
    for _ in range(num_steps):
        random = games.rng.integers(len(games.keys), size=games.num_games)
        step = games.step(random if agent is None else agent.predict(step.features, deterministic=True)[0])
        frames.append(games.frames)
        paid.append(step.paid)
    return Dream(np.stack(frames), np.stack(paid))


def audits(
    config: ImaginationConfig, head: RewardHead, held_out: Recording, games: DreamedGames, agent: Any
) -> tuple[dict[str, dict[str, float]], Dream]:
    """The head's pay in real games, checked with the truth and as dreams have to be checked, and in dreams."""
    store = held_out.store
    probability = probabilities(head, held_out.tokens, store.episodes)
    paid, truth = ([values[start:stop, :1] for start, stop in store.episodes] for values in (probability, held_out.happened))
    seen = [hits(store.frames[start:stop, None]) for start, stop in store.episodes]
    played, random = dream(games, config.rollout_steps, agent), dream(games, config.rollout_steps)
    return {
        "real": audit(paid, truth),
        "real_by_picture": audit(paid, seen),
        "dream_of_random_keys": audit([random.paid], [hits(random.frames)]),
        "dream_of_the_agent": audit([played.paid], [hits(played.frames)]),
    }, played


def save_payments(path: str, played: Dream) -> None:
    """The highest payments for nothing, one of a rollout at most: the frame before, the frame that was paid, the one after."""
    unfounded = np.where(near(hits(played.frames)), 0.0, played.paid)[EDGE:-EDGE]
    times = unfounded.argmax(axis=0) + EDGE  # (B,)
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
        return None if results[0] is None else float(np.mean(results))
    names = [name for name in results[0] if not name.endswith("standard_error")]  # of the games, the same for all seeds
    means = {name.replace(" ", "_"): over_seeds([r[name] for r in results]) for name in names}
    for name in ("auc", "score"):
        if means.get(name) is not None:
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
    runs = [run_seed(config, seed, world, recordings, real) for seed in config.seeds]
    results = [result for result, _ in runs]
    players = {name: play(player, real, config.test_games, 0, name) for name, player in baselines().items()}
    print(format_table(players))
    if config.json:
        num_frames = len(recordings[0].tokens), len(recordings[1].tokens)
        facts = settings_of(config, "json", "picture", "data_path") | {"num_frames": num_frames, "by_seed": results}
        save_json(config.json, facts | {"over_seeds": over_seeds(results), "baselines": over_seeds([players])})
    if config.picture:
        save_payments(config.picture, runs[0][1])


if __name__ == "__main__":
    run_script(main)
