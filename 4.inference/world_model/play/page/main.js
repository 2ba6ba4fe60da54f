// The page's parts, put together. Each listens to the game and knows nothing of the others.

import { showCodes } from "./codes.js";
import { buildPad, wireControls } from "./controls.js";
import { letFilm } from "./film.js";
import { Game } from "./game.js";
import { Input } from "./input.js";
import { showInspector } from "./inspector.js";
import { letPaint } from "./painter.js";
import { showParting } from "./plot.js";
import { showScreens } from "./screens.js";
import { Stats } from "./stats.js";

const game = new Game();
const notice = document.getElementById("notice");
game.addEventListener("notice", ({ detail }) => {
  notice.textContent = detail.text;
  notice.classList.toggle("wrong", detail.wrong);
});

const shortcuts = wireControls(game);
shortcuts.f = letFilm(game);
Object.assign(shortcuts, showInspector(game));

const input = new Input(() => { game.hurry(); game.tell("held"); }, shortcuts);
game.wish = () => input.wish();
game.takeChange = () => input.takeChange();
game.addEventListener("world", () => {
  input.keys = game.world.keys;
  input.numActions = game.world.num_actions;
});

showScreens(game);
showParting(game);
showCodes(game, input);
letPaint(game);
buildPad(game, input);
const stats = new Stats(game);

window.play = { game, input, stats }; // for the browser's console, the tests and play_benchmark.py
