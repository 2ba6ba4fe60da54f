// A look into a frame: its grid of tokens, how sure the model is of each, and the decoding passes that unmasked them.

import { paint } from "./screens.js";

const PASS_MS = 900; // slow motion: time to look at one pass

export function showInspector(game) {
  const ids = ["inspector-card", "grid", "heat", "heat-on", "token-text", "slow", "pass", "filling", "pass-text"];
  const [card, grid, heat, heatOn, tokenText, slow, passSlider, filling, passText] = ids.map((id) => document.getElementById(id));
  let inspected = null; // the newest frame's facts
  let passes = null; // {pictures, unmasked, grid} of slow motion
  let chosen = null; // place of the token that is described
  let timer = 0;

  const hot = (alpha) => `rgba(${getComputedStyle(document.documentElement).getPropertyValue("--hot")}, ${alpha})`;
  /** Doubt, 0 to 1, on a scale that shows the difference between 0.99 and 1. */
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
      + `probability ${inspected.probability[place].toFixed(2)}, unmasked in pass ${inspected.unmasked_in[place]}.`;
  }

  /** Nothing to inspect: the card is shut, the dream has just started, or its model does not decode in passes. */
  function clear() {
    heat.hidden = true;
    grid.getContext("2d").clearRect(0, 0, grid.width, grid.height);
    tokenText.textContent = "";
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
    const unmasked = passes.unmasked[number - 1];
    const [rows, columns] = passes.grid;
    const pen = filling.getContext("2d");
    unmasked.forEach((done, place) => {
      if (done) return; // what is still masked is grayed out
      const [x, y] = [((place % columns) * width) / columns, (Math.floor(place / columns) * height) / rows];
      pen.fillStyle = "rgba(128, 128, 128, 0.55)";
      pen.fillRect(x, y, width / columns, height / rows);
    });
    const masked = unmasked.filter((done) => !done).length;
    passSlider.value = number;
    passText.textContent = `Pass ${number} of ${passes.pictures.length}: ${unmasked.length - masked} of ${unmasked.length} tokens are unmasked`
      + `${masked ? "; the gray ones are sampled again." : "."}`;
  }

  async function slowMotion() {
    card.open = game.inspect = true;
    game.pause(true);
    if (!inspected) await game.step(); // a frame that was not inspected has no record of its passes
    const packet = await game.ask({ do: "passes" });
    if (!packet) return;
    const size = game.world.width * game.world.height * 3;
    const pictures = packet.head.unmasked.map((_, number) => packet.bytes.subarray(number * size, (number + 1) * size));
    passes = { pictures, unmasked: packet.head.unmasked, grid: inspected.grid };
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
  game.addEventListener("begin", () => { inspected = null; clear(); });
  game.addEventListener("frame", ({ detail }) => {
    inspected = detail.head.inspect ?? null;
    if (inspected) show();
    else clear();
  });
  game.addEventListener("world", () => { filling.hidden = passSlider.disabled = true; passes = null; });
}
