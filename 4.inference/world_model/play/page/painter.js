// Paint on the newest frame and start a dream from it: what happens if there are two balls?

import { paint } from "./screens.js";

const MAX_COLORS = 8;

/** The most frequent, visibly different colors of RGB bytes, as [r, g, b]. */
function commonColors(bytes) {
  const counts = new Map();
  for (let place = 0; place < bytes.length; place += 3) {
    const key = (bytes[place] >> 4 << 8) | (bytes[place + 1] >> 4 << 4) | (bytes[place + 2] >> 4);
    const entry = counts.get(key) ?? { count: 0, color: [bytes[place], bytes[place + 1], bytes[place + 2]] };
    entry.count += 1;
    counts.set(key, entry);
  }
  const chosen = [];
  for (const { color } of [...counts.values()].sort((a, b) => b.count - a.count)) {
    const distance = (other) => Math.max(...color.map((value, channel) => Math.abs(value - other[channel])));
    if (chosen.every((other) => distance(other) > 40)) chosen.push(color);
    if (chosen.length === MAX_COLORS) break;
  }
  return chosen;
}

export function wirePainter(game) {
  const ids = ["easel", "palette", "brush", "fetch", "play-drawing", "upload", "start-card"];
  const [easel, palette, brush, fetchFrame, playDrawing, upload, card] = ids.map((id) => document.getElementById(id));
  let newest = null; // RGB bytes of the newest frame
  let drawing = null; // RGB bytes on the easel
  let color = [255, 255, 255];
  let cursor = null; // the keyboard's brush: [x, y]

  function show() {
    const { width, height } = game.world;
    paint(easel, drawing, width, height);
    if (!cursor) return;
    const pen = easel.getContext("2d");
    const side = Number(brush.value);
    pen.strokeStyle = "#fff";
    pen.strokeRect(cursor[0] - side / 2, cursor[1] - side / 2, side + 1, side + 1);
  }

  function dab(x, y) {
    const { width, height } = game.world;
    const side = Number(brush.value);
    const [left, top] = [Math.round(x - side / 2), Math.round(y - side / 2)];
    for (let row = Math.max(0, top); row < Math.min(height, top + side); row += 1) {
      for (let column = Math.max(0, left); column < Math.min(width, left + side); column += 1) drawing.set(color, (row * width + column) * 3);
    }
    show();
  }

  function take() {
    if (!newest) return;
    drawing = newest.slice();
    const colors = commonColors(drawing);
    palette.replaceChildren(...colors.map((one, number) => {
      const button = document.createElement("button");
      button.style.background = `rgb(${one})`;
      button.setAttribute("aria-label", `color ${number + 1}, red ${one[0]}, green ${one[1]}, blue ${one[2]}`);
      button.addEventListener("click", () => choose(one, button));
      return button;
    }));
    choose(colors[1] ?? colors[0], palette.children[Math.min(1, colors.length - 1)]);
    show();
  }

  function choose(one, button) {
    color = one;
    for (const other of palette.children) other.setAttribute("aria-pressed", other === button);
  }

  /** Send a picture file's bytes, and start a dream from it. */
  async function playPicture(file) {
    if (file.size > 8 * 2 ** 20 - 1) return game.notice(`${Math.ceil(file.size / 2 ** 20)} MiB are too many; choose a picture of at most 8 MiB.`, true);
    if (await game.ask(await file.arrayBuffer())) {
      game.pause(false);
      await game.begin({ start: "picture", mirror: false });
    }
  }

  function stroke(event) {
    if (!drawing || !(event.buttons & 1)) return;
    const box = easel.getBoundingClientRect();
    cursor = null;
    dab(((event.clientX - box.left) / box.width) * game.world.width, ((event.clientY - box.top) / box.height) * game.world.height);
  }

  easel.addEventListener("pointerdown", (event) => { easel.setPointerCapture(event.pointerId); stroke(event); });
  easel.addEventListener("pointermove", stroke);
  easel.addEventListener("focus", () => {
    if (drawing && easel.matches(":focus-visible")) { cursor = [game.world.width >> 1, game.world.height >> 1]; show(); }
  });
  easel.addEventListener("blur", () => { cursor = null; if (drawing) show(); });
  easel.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!drawing || !(step || event.key === " " || event.key === "Enter")) return;
    event.preventDefault();
    event.stopPropagation(); // not the game's
    cursor ??= [game.world.width >> 1, game.world.height >> 1];
    if (step) cursor = [0, 1].map((axis) => Math.min(Math.max(cursor[axis] + step[axis], 0), (axis ? game.world.height : game.world.width) - 1));
    else dab(...cursor);
    show();
  });

  fetchFrame.addEventListener("click", take);
  playDrawing.addEventListener("click", () => {
    if (!drawing) return game.notice("Take a frame and paint on it first.", true);
    cursor = null;
    show();
    easel.toBlob((blob) => playPicture(blob), "image/png");
  });
  upload.addEventListener("change", () => { if (upload.files.length) playPicture(upload.files[0]); upload.value = ""; });
  card.addEventListener("toggle", () => { if (card.open && !drawing) take(); });
  game.addEventListener("world", () => { drawing = newest = null; });
  for (const name of ["begin", "frame"]) game.addEventListener(name, ({ detail }) => { newest = detail.dream; if (card.open && !drawing) take(); });
}
