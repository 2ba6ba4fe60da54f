"""Measures how late a game shows an action, and whether it flickers, by playing the same game several times.

The picture that closes a step may be taken some emulator frames into the next step, when the movement of the step is complete.
But it must not show the *next* action: from a paddle that has already moved by a pixel, the dynamics model could read the next
key, and would not learn what the key itself does.

A game repeats exactly from its seed and actions. So we play to some moment, continue with different actions, and compare the
pictures: as long as they are equal, they reveal nothing. The best delay is the last one at which they nearly always are. (Nearly,
because rare events may show earlier than movements: Breakout's serve is visible one emulator frame after FIRE.)
"""

from dataclasses import dataclass

import numpy as np

from video_tokenizer.games.emulator import Game

NUM_ACTIONS_TRIED = 6  # different actions per moment; games with more are sampled
TOLERATED = 0.2  # share of the moments that may reveal the action, relative to those that ever do
FLICKER = 0.25  # share of changed pixels that change back in the next frame; above it, the game draws its sprites in turn


@dataclass(frozen=True)
class MeasuredDelay:
    """How soon the screen shows an action, and how much it flickers."""

    revealed: list[float]
    """share of the moments at which the picture 0, 1, 2, ... emulator frames later depends on the action; over two steps"""
    flicker: float
    """share of the pixels that change from one emulator frame to the next which change back in the one after"""

    @property
    def best(self) -> int:
        """The last delay within the step at which hardly any picture depends on the next action; 0 if none ever does."""
        if not any(self.revealed):
            return 0
        too_late = [share > TOLERATED * max(self.revealed) for share in self.revealed]
        return max(0, min(too_late.index(True) - 1, len(too_late) // 2 - 1))

    @property
    def flickers(self) -> bool:
        """Whether two emulator frames must be merged to see all sprites."""
        return self.flicker > FLICKER

    def describe(self) -> str:
        """The measurement and the resulting choice, in one line."""
        figures = ", ".join(f"{delay}: {share:.2f}" for delay, share in enumerate(self.revealed))
        merged = f"{self.flicker:.2f} of the changes are flicker" + (", two frames are merged" if self.flickers else "")
        if not any(self.revealed):
            return f"no action shows in the pictures -> picture delay 0; {merged}"
        if self.revealed[0]:
            return f"the game does not repeat from its seed -> picture delay 0; {merged}"
        shares = f"share of pictures that depend on the action, by emulator frames since: {figures}"
        return f"{shares} -> picture delay {self.best}; {merged}"


def calibrate_picture_delay(env_id: str, num_moments: int = 24, frame_skip: int = 4, seed: int = 0) -> MeasuredDelay:
    """Compare the pictures after `num_moments` moments of random games under different actions. Takes a few seconds.

    Raises InputError as `Game` does.
    """
    game = Game(env_id, (64, 64), frame_skip, picture_delay=0)
    rng = np.random.default_rng((seed, 2))
    num_screens = 2 * frame_skip
    differ, changed, back = np.zeros(num_screens), 0, 0
    for moment in range(num_moments):
        prefix = rng.integers(game.num_actions, size=rng.integers(20, 200))
        if game.fire_action is not None:
            prefix[0] = game.fire_action
        actions = rng.permutation(game.num_actions)[:NUM_ACTIONS_TRIED]
        screens = np.stack([_play(game, prefix, action, num_screens, seed=10**6 + moment) for action in actions])
        differ += (screens != screens[:1]).reshape(len(screens), num_screens, -1).any(axis=(0, 2))
        steps = np.diff(screens.astype(np.int16), axis=1) != 0  # (A, S - 1, H, W, 3)
        changed += int(steps[:, :-1].sum())
        back += int((steps[:, :-1] & (screens[:, 2:] == screens[:, :-2])).sum())
    game.close()
    return MeasuredDelay((differ / num_moments).tolist(), back / max(1, changed))


def _play(game: Game, prefix: np.ndarray, action: int, num_screens: int, seed: int) -> np.ndarray:
    """Play `prefix`, then hold `action`. Returns the screens 0, 1, 2, ... emulator frames later, uint8 (S, H, W, 3)."""
    game.reset(seed)
    for earlier in np.repeat(prefix, game.frame_skip):
        game.advance(int(earlier))
    screens = []
    for _ in range(num_screens):
        screens.append(game.screen())
        game.advance(int(action))
    return np.stack(screens)
