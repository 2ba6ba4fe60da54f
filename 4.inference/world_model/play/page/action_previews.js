// One button for each action: the picture before and after it, and the true actions that a latent action stands for.

import { paint } from "./screens.js";

const percent = (share) => `${Math.round(100 * share)} %`;

/** Cut the region [top, left, height, width] out of RGB bytes. */
function crop(bytes, width, [top, left, rows, columns]) {
  const region = new Uint8Array(rows * columns * 3);
  for (let row = 0; row < rows; row += 1) {
    const first = ((top + row) * width + left) * 3;
    region.set(bytes.subarray(first, first + columns * 3), row * columns * 3);
  }
  return region;
}

export function showActionPreviews(game, input) {
  const card = document.getElementById("actions-card");
  const box = document.getElementById("actions");
  let dream = null; // one symbol for each dream
  let drawnFor = null; // the dream whose first frames the previews show

  function build() {
    drawnFor = null;
    box.replaceChildren();
    card.hidden = !game.world.num_actions;
    game.world.action_names.forEach((name, action) => {
      const button = document.createElement("button");
      button.className = "action";
      button.dataset.source = `action ${action}`;
      button.dataset.action = action;
      const keys = Object.keys(game.world.action_map).filter((key) => game.world.action_map[key] === action);
      button.innerHTML = '<span class="pictures"><canvas></canvas><span>→</span><canvas></canvas></span><b></b><span class="bar"></span><span class="meaning"></span>';
      button.querySelector("b").textContent = `${action}  ${keys.join(", ") || name}`;
      button.classList.toggle("dull", name === "unused" || name === "rare");
      input.holdWith(button, { action });
      box.append(button);
    });
  }

  async function drawPreviews() {
    if (!card.open || !game.world?.num_actions || drawnFor === dream) return;
    drawnFor = dream;
    const packet = await game.ask({ do: "previews" });
    if (!packet) return;
    const { width, height } = game.world;
    const size = width * height * 3;
    const { region } = packet.head;
    const picture = (number) => crop(packet.bytes.subarray(number * size, (number + 1) * size), width, region);
    box.querySelectorAll(".action").forEach((button, action) => {
      const [before, after] = button.querySelectorAll("canvas");
      paint(before, picture(0), region[3], region[2]);
      paint(after, picture(action + 1), region[3], region[2]);
    });
  }

  /** The server counts in the background; ask until it is done. */
  async function drawMeanings() {
    const world = game.world;
    if (world.action_kind !== "latent" || !world.real_game) return;
    const packet = await game.ask({ do: "code_meanings" });
    if (!packet || game.world !== world) return;
    if (packet.head.counts) showMeanings(packet.head);
    if (!packet.head.complete) setTimeout(() => { if (game.world === world) drawMeanings(); }, 1000);
  }

  function showMeanings(head) {
    box.querySelectorAll(".action").forEach((button, code) => {
      const counts = head.counts[code];
      const total = counts.reduce((sum, count) => sum + count, 0);
      const shares = counts.map((count, action) => ({ share: count / total, name: head.actions[action] }))
        .filter((one) => one.share > 0.005).sort((a, b) => b.share - a.share);
      const bar = button.querySelector(".bar");
      bar.replaceChildren(...(total ? shares : []).map((one, place) => {
        const piece = document.createElement("i");
        piece.style.flexBasis = `${100 * one.share}%`;
        piece.style.opacity = Math.max(0.25, 0.9 - 0.25 * place);
        return piece;
      }));
      const text = total ? shares.slice(0, 3).map((one) => `${one.name} ${percent(one.share)}`).join(", ") : "never seen";
      button.querySelector(".meaning").textContent = text;
      button.title = total ? `Of ${total} steps with this action, played at random: ${shares.map((one) => `${one.name} ${percent(one.share)}`).join(", ")}` : "";
    });
  }

  game.addEventListener("world", build);
  game.addEventListener("begin", () => { dream = Symbol("dream"); drawPreviews(); });
  game.addEventListener("world", drawMeanings);
  card.addEventListener("toggle", drawPreviews);
  game.addEventListener("held", () => {
    const action = game.playing ? input.held.at(-1)?.action ?? game.world.action_map[input.held.at(-1)?.key] : undefined;
    for (const button of box.children) button.classList.toggle("down", Number(button.dataset.action) === action);
  });
}
