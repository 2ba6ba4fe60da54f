// One line that says which keys do what in this world, and what to press when no ball is in the game.

import { ARROWS } from "./input.js";

/** "← left, → right, space serves a lost ball, 0 to 7 hold a discovered action": only what this world has. */
function keysOf({ keys, action_map: map, action_kind: kind, num_actions: count, ball_game: ball, real_game: real }) {
  if (!count) return "This world has no actions: watch what it dreams.";
  const parts = Object.keys(ARROWS).filter((key) => key !== " " && key in keys).map((key) => {
    const [sign, word] = ARROWS[key];
    return `${sign} ${word}${keys[key] === word.toUpperCase() ? "" : ` (the game's ${keys[key]})`}`;
  });
  const heard = map.FIRE !== map.NOOP; // a latent action may stand for both
  if (" " in keys && (ball || heard || real)) parts.push(`space ${ball ? "serves a lost ball" : heard ? "fires" : "fires, in the real game only"}`);
  parts.push(`0 to ${Math.min(count, 10) - 1} hold ${kind === "latent" ? "a discovered action" : "an action"}`);
  return `${parts.join(", ")}.`;
}

function whatServes(noBall, mirrored) {
  if (!noBall.includes("dream")) return "No ball in the real game: space serves.";
  if (mirrored) return "No ball in the dream: space serves, and it starts again beside the real game.";
  return "No ball in the dream, and no key of it serves one: space starts it again with the ball in flight.";
}

export function showKeys(game) {
  const line = document.getElementById("keys");
  function show() {
    const text = game.noBall.length ? whatServes(game.noBall, game.mirrored) : keysOf(game.world);
    if (line.textContent !== text) line.textContent = text; // a screen reader reads every change
    line.classList.toggle("lost", game.noBall.length > 0);
  }
  for (const name of ["begin", "frame"]) game.addEventListener(name, show);
}
