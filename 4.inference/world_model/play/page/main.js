// Puts the page's parts together. Each listens to the game and knows nothing of the others.
//
// A button calls a method of Game (game.js), which sends a message to the server: ask({ do: "resync", seed: 0 }). The server has
// `Player` carry it out (server.py describes the way, player.py lists all messages), and the packet that comes back is what `ask`
// resolves to. New frames are announced to all parts as events, "begin" and "frame". A new button with its key is a row in buttons.js.

import { showActionPreviews } from "./action_previews.js";
import { showButtons } from "./buttons.js";
import { showDivergence } from "./divergence.js";
import { wireFilm } from "./film.js";
import { Game } from "./game.js";
import { Input, showTouchPad } from "./input.js";
import { showInspector } from "./inspector.js";
import { showKeys } from "./keys.js";
import { wirePainter } from "./painter.js";
import { showScreens } from "./screens.js";
import { wireSettings } from "./settings.js";
import { playSound } from "./sound.js";
import { Stats } from "./stats.js";

const game = new Game();
const notice = document.getElementById("notice");
game.addEventListener("notice", ({ detail }) => {
  notice.textContent = detail.text;
  notice.classList.toggle("wrong", detail.wrong);
});

const input = new Input(() => { game.hurry(); game.emit("held"); });
game.readInput = () => input.current();
game.takePressTime = () => input.takePressTime();
game.addEventListener("world", () => {
  input.keys = game.world.keys;
  input.numActions = game.world.num_actions;
});

showButtons(game);
showScreens(game);
showDivergence(game);
showActionPreviews(game, input);
showTouchPad(game, input);
showKeys(game);
showInspector(game);
playSound(game);
wireSettings(game);
wirePainter(game);
wireFilm(game);
const stats = new Stats(game);

window.play = { game, input, stats }; // for the browser's console, the tests and play_benchmark.py
