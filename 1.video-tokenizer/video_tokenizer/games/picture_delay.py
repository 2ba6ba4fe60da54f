"""How late a game shows an action, and whether it flickers, measured by playing the same game twice.

The picture that closes a step may be taken some emulator frames into the next step, so that the movement of the step is complete
when it is taken. But never so late that it betrays the *next* action: a paddle that has moved by one pixel already tells the
dynamics model which key comes, and what a picture tells it, it need not learn from the key. The dream then moves by itself.

Games repeat exactly from their seed and actions. So we play to some moment, go on under different actions, and compare the
pictures: as long as they are equal, nothing is betrayed. The best delay is the last one at which they nearly always are. (Nearly,
because rare events may show sooner than movements do: Breakout's serve is seen one emulator frame after FIRE.)
"""

from dataclasses import dataclass

import numpy as np

from video_tokenizer.games.emulator import Game

NUM_ACTIONS_TRIED = 6  # different actions per moment; games with more are sampled
TOLERATED = 0.2  # share of the moments at which an action ever shows that may betray it already
FLICKER = 0.25  # share of changed pixels that change back at once, above which a game draws its sprites in turn


@dataclass(frozen=True)
class MeasuredDelay:
    """What the emulator frames after a moment show of the action pressed then."""

    betrayed: list[float]
    """share of the moments at which the picture 0, 1, 2, ... emulator frames later depends on it; two steps long"""
    flicker: float
    """share of the pixels that change from one emulator frame to the next and change back in the one after"""

    @property
    def best(self) -> int:
        """The last delay within the step at which hardly a picture depends on the next action; 0 where no action ever shows."""
        if not any(self.betrayed):
            return 0
        too_late = [share > TOLERATED * max(self.betrayed) for share in self.betrayed]
        return max(0, min(too_late.index(True) - 1, len(too_late) // 2 - 1))

    @property
    def flickers(self) -> bool:
        """Whether two emulator frames must be merged to see everything."""
        return self.flicker > FLICKER

    def describe(self) -> str:
        """The figures and the choice, in one line."""
        figures = ", ".join(f"{delay}: {share:.2f}" for delay, share in enumerate(self.betrayed))
        merged = f"{self.flicker:.2f} of the changes are flicker" + (", two frames are merged" if self.flickers else "")
        if not any(self.betrayed):
            return f"no action shows in the pictures -> picture delay 0; {merged}"
        if self.betrayed[0]:
            return f"the game does not repeat itself from its seed -> picture delay 0; {merged}"
        shares = f"share of pictures that depend on the action, by emulator frames since: {figures}"
        return f"{shares} -> picture delay {self.best}; {merged}"


def calibrate_picture_delay(env_id: str, num_moments: int = 24, frame_skip: int = 4, seed: int = 0) -> MeasuredDelay:
    """Compare the pictures after `num_moments` moments of random games under different actions. A few seconds.

    Raises InputError as `Game` does.
    """
    game = Game(env_id, (64, 64), frame_skip, picture_delay=0)
    rng = np.random.default_rng((seed, 2))
    num_screens = 2 * frame_skip
    differ, changed, back = np.zeros(num_screens), 0, 0
    for moment in range(num_moments):
        beginning = rng.integers(game.num_actions, size=rng.integers(20, 200))
        if game.fire_action is not None:
            beginning[0] = game.fire_action
        actions = rng.permutation(game.num_actions)[:NUM_ACTIONS_TRIED]
        films = np.stack([_film(game, beginning, action, num_screens, seed=10**6 + moment) for action in actions])
        differ += (films != films[:1]).reshape(len(films), num_screens, -1).any(axis=(0, 2))
        steps = np.diff(films.astype(np.int16), axis=1) != 0  # (A, S - 1, H, W, 3)
        changed += int(steps[:, :-1].sum())
        back += int((steps[:, :-1] & (films[:, 2:] == films[:, :-2])).sum())
    game.close()
    return MeasuredDelay((differ / num_moments).tolist(), back / max(1, changed))


def _film(game: Game, beginning: np.ndarray, action: int, num_screens: int, seed: int) -> np.ndarray:
    """The screens 0, 1, 2, ... emulator frames after `action` went down, (S, H, W, 3) uint8; before it, `beginning` is played."""
    game.reset(seed)
    for earlier in np.repeat(beginning, game.frame_skip):
        game.advance(int(earlier))
    screens = []
    for _ in range(num_screens):
        screens.append(game.screen())
        game.advance(int(action))
    return np.stack(screens)
