// One button for each action: the picture before and after it, and which true actions a latent code stands for.

import { paint } from "./screens.js";

const percent = (share) => `${Math.round(100 * share)} %`;

/** Cut the part [top, left, height, width] out of RGB bytes. */
function cut(bytes, width, [top, left, rows, columns]) {
  const part = new Uint8Array(rows * columns * 3);
  for (let row = 0; row < rows; row += 1) {
    const first = ((top + row) * width + left) * 3;
    part.set(bytes.subarray(first, first + columns * 3), row * columns * 3);
  }
  return part;
}

export function showCodes(game, input) {
  const card = document.getElementById("codes-card");
  const box = document.getElementById("codes");
  let drawnFor = null; // the beginning whose pictures are shown

  function build() {
    drawnFor = null;
    box.replaceChildren();
    card.hidden = !game.world.num_actions;
    game.world.action_names.forEach((name, action) => {
      const button = document.createElement("button");
      button.className = "code";
      button.dataset.source = `action ${action}`;
      button.dataset.action = action;
      const keys = Object.keys(game.world.action_map).filter((key) => game.world.action_map[key] === action);
      button.innerHTML = '<span class="pictures"><canvas></canvas><span>→</span><canvas></canvas></span><b></b><span class="bar"></span><span class="share"></span>';
      button.querySelector("b").textContent = `${action}  ${keys.join(", ") || name}`;
      button.classList.toggle("dull", name === "unused" || name === "rare");
      input.holdWith(button, { action });
      box.append(button);
    });
  }

  async function drawPictures() {
    if (!card.open || !game.world?.num_actions || drawnFor === game.beginning) return;
    drawnFor = game.beginning;
    const packet = await game.ask({ do: "codes" });
    if (!packet) return;
    const { width, height } = game.world;
    const size = width * height * 3;
    const part = packet.head.part;
    const picture = (number) => cut(packet.bytes.subarray(number * size, (number + 1) * size), width, part);
    box.querySelectorAll(".code").forEach((button, action) => {
      const [before, after] = button.querySelectorAll("canvas");
      paint(before, picture(0), part[3], part[2]);
      paint(after, picture(action + 1), part[3], part[2]);
    });
  }

  /** The server counts in the background; ask until it is done. */
  async function drawShares() {
    const world = game.world;
    if (world.action_kind !== "latent" || !world.real_game) return;
    const packet = await game.ask({ do: "shares" });
    if (!packet || game.world !== world) return;
    if (packet.head.counts) showShares(packet.head);
    if (!packet.head.complete) setTimeout(() => { if (game.world === world) drawShares(); }, 1000);
  }

  function showShares(head) {
    box.querySelectorAll(".code").forEach((button, code) => {
      const counts = head.counts[code];
      const total = counts.reduce((sum, count) => sum + count, 0);
      const parts = counts.map((count, action) => ({ share: count / total, name: head.actions[action] }))
        .filter((one) => one.share > 0.005).sort((a, b) => b.share - a.share);
      const bar = button.querySelector(".bar");
      bar.replaceChildren(...(total ? parts : []).map((one, place) => {
        const piece = document.createElement("i");
        piece.style.flexBasis = `${100 * one.share}%`;
        piece.style.opacity = Math.max(0.25, 0.9 - 0.25 * place);
        return piece;
      }));
      const text = total ? parts.slice(0, 3).map((one) => `${one.name} ${percent(one.share)}`).join(", ") : "never seen";
      button.querySelector(".share").textContent = text;
      button.title = total ? `Of ${total} steps with this code, played at random: ${parts.map((one) => `${one.name} ${percent(one.share)}`).join(", ")}` : "";
    });
  }

  game.addEventListener("world", build);
  game.addEventListener("begin", () => { game.beginning = Symbol("beginning"); drawPictures(); });
  game.addEventListener("world", drawShares);
  card.addEventListener("toggle", drawPictures);
  game.addEventListener("held", () => {
    const action = game.playing ? input.held.at(-1)?.action ?? game.world.action_map[input.held.at(-1)?.key] : undefined;
    for (const button of box.children) button.classList.toggle("down", Number(button.dataset.action) === action);
  });
}
