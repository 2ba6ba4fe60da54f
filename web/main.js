// Puts the page together from the modules of the play page (4.inference/world_model/play/page), which build the same page around
// a server. Here connection.js asks a worker instead, and all else stays as it was.

import { showButtons } from "./buttons.js";
import { Game } from "./game.js";
import { Input, showTouchPad } from "./input.js";
import { showInspector } from "./inspector.js";
import { showKeys } from "./keys.js";
import { showScreens } from "./screens.js";
import { samplingControls } from "./settings.js";
import { showStarts } from "./starts.js";
import { Stats } from "./stats.js";

const byId = (id) => document.getElementById(id);

const game = new Game();
game.addEventListener("notice", ({ detail }) => {
  byId("notice").textContent = detail.text;
  byId("notice").classList.toggle("wrong", detail.wrong);
});
game.connection.onProgress = (text) => game.notice(text);

const input = new Input(() => { game.hurry(); game.emit("held"); });
game.readInput = () => input.current();
game.takePressTime = () => input.takePressTime();

byId("world").addEventListener("change", () => game.open(byId("world").value));
byId("speed").addEventListener("change", () => game.setSpeed(Number(byId("speed").value)));
byId("seed").addEventListener("change", () => game.begin({ seed: Math.max(0, Math.floor(Number(byId("seed").value)) || 0) }));
game.addEventListener("welcome", ({ detail }) => {
  byId("world").replaceChildren(...detail.worlds.map((name) => new Option(name)));
  byId("world").value = detail.first;
});
game.addEventListener("world", () => {
  input.keys = game.world.keys;
  input.numActions = game.world.num_actions;
  byId("sampling").replaceChildren(...samplingControls(game));
});

showButtons(game);
showScreens(game);
showStarts(game);
showTouchPad(game, input);
showKeys(game);
showInspector(game);
const stats = new Stats(game);

window.play = { game, input, stats }; // for the browser's console and the tests
