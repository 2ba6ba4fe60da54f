// The frames from which a world's dreams begin, as buttons.

import { paint } from "./screens.js";

export function showStarts(game) {
  const box = document.getElementById("starts");

  game.addEventListener("world", () => {
    const { num_starts: count, start_pictures: pictures, width, height } = game.world;
    const size = width * height * 3;
    box.replaceChildren(...Array.from({ length: count }, (_, index) => {
      const [button, canvas] = ["button", "canvas"].map((tag) => document.createElement(tag));
      button.setAttribute("aria-label", `start ${index + 1} of ${count}`);
      button.addEventListener("click", () => game.begin({ index }));
      paint(canvas, pictures.subarray(index * size, (index + 1) * size), width, height);
      button.append(canvas);
      return button;
    }));
  });
  game.addEventListener("state", () => {
    [...box.children].forEach((button, index) => button.setAttribute("aria-pressed", index === game.start.index));
  });
}
