"""The chart of planning: what more imagined futures per decision are worth, beside players that do not plan."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizer_lab.drawing import Drawing

LEFT, TOP, WIDE, HIGH = 60, 46, 430, 230
"""where the chart lies, and its size"""


def save_planning(path: Path, players: Mapping[str, Mapping[str, Any]], perfect: Mapping[str, Mapping[str, Any]]) -> None:
    """Balls lost against rollouts per decision, as PATH_light.svg and PATH_dark.svg.

    players: `players` of plan.py's JSON file. perfect: those of a planner that imagines in the emulator, with the largest of
    these numbers of rollouts.
    """
    planned = {int(name.split("_")[1]): scores for name, scores in players.items() if name.startswith("planning_")}
    counts = sorted(planned)
    highest = 1.1 * max(scores["balls_lost"] for scores in players.values())
    drawing = Drawing(700, 330, "Balls lost per game against imagined futures per decision: fewer with more futures")

    def height(lost: float) -> float:
        return TOP + HIGH * (1 - lost / highest)

    drawing.text(LEFT - 40, TOP - 26, "balls lost in a game", 16, anchor="start", bold=True)
    for tick in range(int(highest) + 1):
        drawing.line([(LEFT, height(tick)), (LEFT + WIDE, height(tick))], "faint", 1)
        drawing.text(LEFT - 10, height(tick), str(tick), 15, "muted", "end")
    for name, label in {"chance": "chance", "standing_still": "standing still", "a_rule_by_hand": "a rule by hand"}.items():
        level = height(players[name]["balls_lost"])
        drawing.line([(LEFT, level), (LEFT + WIDE, level)], "warm", 1.5, "5 4")
        drawing.text(LEFT + WIDE + 8, level, label, 15, "warm", "start")
    places = [
        (LEFT + WIDE * (number + 0.5) / len(counts), height(planned[count]["balls_lost"])) for number, count in enumerate(counts)
    ]
    drawing.line(places, "accent", 2)
    for count, (x, y) in zip(counts, places, strict=True):
        drawing.add("circle", cx=x, cy=y, r=5, fill="accent")
        drawing.text(x, TOP + HIGH + 18, str(count), 15, "muted")
    x, y = places[-1][0], height(perfect[f"planning_{counts[-1]}_rollouts"]["balls_lost"])
    drawing.add("circle", cx=x, cy=y, r=5, fill="good")
    drawing.text(x + 6, y - 14, "imagined in the game itself", 15, "good", "end")
    drawing.text(places[0][0] + 14, places[0][1] - 12, "planning", 15, "accent", "start", bold=True)
    drawing.text(LEFT + WIDE / 2, TOP + HIGH + 44, "imagined futures per decision", 15, "muted")
    drawing.save(path)
