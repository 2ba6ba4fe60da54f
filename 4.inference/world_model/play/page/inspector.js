// Looking into a frame: its grid of tokens, how sure the model is of each, and the passes in which they were settled.

import { paint } from "./screens.js";

const PASS_MS = 900; // slow motion: time to look at one pass

/** Fill the inspector card. Returns what the keyboard's shortcuts do. */
export function showInspector(game) {
  const ids = ["inspector-card", "grid", "heat", "heat-on", "token-text", "slow", "pass", "filling", "pass-text"];
  const [card, grid, heat, heatOn, tokenText, slow, passSlider, filling, passText] = ids.map((id) => document.getElementById(id));
  let inspected = null; // the newest frame's facts
  let passes = null; // {pictures, settled} of slow motion
  let chosen = null; // place of the token that is looked at
  let timer = 0;

  const hot = (alpha) => `rgba(${getComputedStyle(document.documentElement).getPropertyValue("--hot")}, ${alpha})`;
  /** Doubt, 0 to 1, so that 0.99 can still be told from 1. */
  const doubt = (probability) => Math.min(1, -Math.log10(Math.max(probability, 0.01)) / 1.2);

  /** One square per token, the more coloured the less sure; numbers where there is room. */
  function drawGrid() {
    const [rows, columns] = inspected.grid;
    const side = Math.max(12, Math.floor(320 / columns));
    grid.width = side * columns;
    grid.height = side * rows;
    grid.style.aspectRatio = `${columns} / ${rows}`;
    const pen = grid.getContext("2d");
    const style = getComputedStyle(document.documentElement);
    pen.fillStyle = style.getPropertyValue("--key");
    pen.fillRect(0, 0, grid.width, grid.height);
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    pen.font = `${Math.round(side * 0.34)}px system-ui`;
    inspected.tokens.forEach((token, place) => {
      const [x, y] = [(place % columns) * side, Math.floor(place / columns) * side];
      pen.fillStyle = hot(0.85 * doubt(inspected.probability[place]));
      pen.fillRect(x, y, side, side);
      pen.strokeStyle = style.getPropertyValue(place === chosen ? "--ink" : "--line");
      pen.strokeRect(x + 0.5, y + 0.5, side - 1, side - 1);
      pen.fillStyle = style.getPropertyValue("--ink");
      if (side >= 24) pen.fillText(token, x + side / 2, y + side / 2 + 1);
    });
  }

  function drawHeat() {
    heat.hidden = !(inspected && game.inspect && heatOn.checked);
    if (heat.hidden) return;
    const [rows, columns] = inspected.grid;
    heat.width = columns;
    heat.height = rows;
    const pen = heat.getContext("2d");
    pen.clearRect(0, 0, columns, rows);
    inspected.probability.forEach((probability, place) => {
      pen.fillStyle = hot(0.7 * doubt(probability));
      pen.fillRect(place % columns, Math.floor(place / columns), 1, 1);
    });
  }

  function describe() {
    const least = inspected.probability.indexOf(Math.min(...inspected.probability));
    const place = chosen ?? least;
    const columns = inspected.grid[1];
    const where = `row ${Math.floor(place / columns) + 1}, column ${(place % columns) + 1}`;
    tokenText.textContent = `${chosen === null ? "Least sure: " : ""}${where}, token ${inspected.tokens[place]}, `
      + `probability ${inspected.probability[place].toFixed(2)}, settled in pass ${inspected.settled_in[place]}.`;
  }

  function show() {
    if (!inspected) return;
    drawGrid();
    drawHeat();
    describe();
  }

  function showPass(number) {
    if (!passes) return;
    const { width, height } = game.world;
    filling.hidden = false;
    paint(filling, passes.pictures[number - 1], width, height);
    const settled = passes.settled[number - 1];
    const [rows, columns] = inspected.grid;
    const pen = filling.getContext("2d");
    settled.forEach((done, place) => {
      if (done) return; // what still waits is crossed out
      const [x, y] = [((place % columns) * width) / columns, (Math.floor(place / columns) * height) / rows];
      pen.fillStyle = "rgba(128, 128, 128, 0.55)";
      pen.fillRect(x, y, width / columns, height / rows);
    });
    const waiting = settled.filter((done) => !done).length;
    passSlider.value = number;
    passText.textContent = `Pass ${number} of ${passes.pictures.length}: ${settled.length - waiting} of ${settled.length} tokens are settled`
      + `${waiting ? "; the grey ones are drawn again." : "."}`;
  }

  async function slowMotion() {
    if (!inspected) { // a frame that nobody looked into has left no trace
      game.inspect = true;
      await game.step();
    }
    game.pause(true);
    const packet = await game.ask({ do: "passes" });
    if (!packet) return;
    const size = game.world.width * game.world.height * 3;
    const pictures = packet.head.settled.map((_, number) => packet.bytes.subarray(number * size, (number + 1) * size));
    passes = { pictures, settled: packet.head.settled };
    passSlider.max = pictures.length;
    passSlider.disabled = false;
    clearInterval(timer);
    let number = 1;
    showPass(number);
    timer = setInterval(() => { if (number < pictures.length) showPass((number += 1)); else clearInterval(timer); }, PASS_MS);
  }

  function choose(place) {
    if (!inspected) return;
    const [rows, columns] = inspected.grid;
    chosen = Math.min(Math.max(place, 0), rows * columns - 1);
    show();
  }

  grid.addEventListener("pointermove", (event) => {
    if (!inspected) return;
    const [rows, columns] = inspected.grid;
    const box = grid.getBoundingClientRect();
    choose(Math.floor(((event.clientY - box.top) / box.height) * rows) * columns + Math.floor(((event.clientX - box.left) / box.width) * columns));
  });
  grid.addEventListener("pointerleave", () => { chosen = null; show(); });
  grid.addEventListener("blur", () => { chosen = null; show(); });
  grid.addEventListener("keydown", (event) => {
    const columns = inspected?.grid[1] ?? 1;
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation(); // not the game's
    choose((chosen ?? 0) + step);
  });

  slow.addEventListener("click", slowMotion);
  passSlider.addEventListener("input", () => { clearInterval(timer); showPass(Number(passSlider.value)); });
  heatOn.addEventListener("change", drawHeat);
  card.addEventListener("toggle", () => { game.inspect = card.open; drawHeat(); });
  game.addEventListener("begin", () => { inspected = null; heat.hidden = true; });
  game.addEventListener("frame", ({ detail }) => {
    inspected = detail.head.inspect ?? null;
    show();
  });
  game.addEventListener("world", () => { filling.hidden = passSlider.disabled = true; passes = null; });
  return { i: () => { card.open = !card.open; }, o: () => { card.open = true; return slowMotion(); } };
}
