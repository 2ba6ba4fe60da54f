// The controls: which world, where it begins, how it is drawn, how fast it goes.

const ARROWS = { ArrowLeft: "←", ArrowUp: "↑", ArrowDown: "↓", ArrowRight: "→", " ": "fire" };
const WORDS = { ArrowLeft: "left", ArrowUp: "up", ArrowDown: "down", ArrowRight: "right", " ": "fire" };

const byId = (id) => document.getElementById(id);

/** Buttons and fields that change the game. Returns what the keyboard's shortcuts do. */
export function wireControls(game) {
  const wholeNumber = (id) => Math.min(Math.max(Math.floor(Number(byId(id).value)) || 0, 0), 2 ** 31 - 1);

  function begin(changes) {
    const start = changes.start ?? game.start.start;
    return game.begin({ ...changes, mirror: byId("mirror").checked && start === "game" });
  }

  function nextStart() {
    const stored = game.start.start === "stored";
    const index = game.start.start === "picture" ? game.start.index : game.start.index + 1;
    return begin({ index: stored ? index % game.world.num_starts : index });
  }

  async function oneStep() {
    if (!game.paused) game.pause(true);
    await game.step();
  }

  function toggleMirror() {
    if (!game.world.real_game) return game.notice(`No real game: ${game.world.no_game}.`, true);
    byId("mirror").checked = !byId("mirror").checked;
    return begin(byId("mirror").checked ? { start: "game" } : {});
  }

  byId("world").addEventListener("change", () => game.open(byId("world").value));
  byId("mirror").addEventListener("change", () => { byId("mirror").checked = !byId("mirror").checked; toggleMirror(); });
  byId("pause").addEventListener("click", () => game.pause());
  byId("single").addEventListener("click", oneStep);
  byId("again").addEventListener("click", () => begin({}));
  byId("next").addEventListener("click", nextStart);
  byId("resync").addEventListener("click", () => game.resync());
  byId("speed").addEventListener("change", () => { game.speed = Number(byId("speed").value); game.due = 0; game.wake(); });
  byId("start").addEventListener("change", () => {
    if (byId("start").value === "picture") return byId("upload").click();
    return begin({ start: byId("start").value, index: 0 });
  });
  byId("index").addEventListener("change", () => begin({ index: wholeNumber("index") }));
  byId("seed").addEventListener("change", () => begin({ seed: wholeNumber("seed") }));
  for (const name of ["temperature", "num_steps"]) {
    byId(name).addEventListener("input", async () => {
      const packet = await game.ask({ do: "sampling", [name]: Number(byId(name).value) });
      if (packet) showSampling(packet.head);
    });
  }

  function showSampling(sampling) {
    for (const name of ["temperature", "num_steps"]) {
      byId(name).value = sampling[name];
      byId(`${name}-now`).textContent = sampling[name];
    }
  }

  game.addEventListener("welcome", ({ detail }) => {
    byId("world").replaceChildren(...detail.worlds.map((name) => new Option(label(name), name)));
    byId("world").value = detail.first;
  });
  let sampled = false; // the first world's sampling is shown; later ones take over what the player chose
  game.addEventListener("world", () => {
    if (!sampled) showSampling(game.world.sampling);
    sampled = true;
    byId("mirror").checked = Boolean(game.world.real_game);
    byId("mirror").disabled = !game.world.real_game;
    byId("start").options[0].disabled = !game.world.real_game;
    byId("gym").textContent = gymLines(game.world.name);
  });
  game.addEventListener("state", () => {
    byId("pause").setAttribute("aria-pressed", game.paused);
    byId("pause-word").textContent = game.paused ? "Play on" : "Pause";
    byId("start").value = game.start.start;
    byId("index").value = game.start.index;
    byId("seed").value = game.start.seed;
    byId("mirror").checked = game.start.mirror;
    byId("resync").disabled = !game.mirrored;
  });
  return { p: () => game.pause(), ".": oneStep, r: () => begin({}), n: nextStart, s: () => game.resync(), m: toggleMirror };
}

/** "breakout" for a world that came with the repository, "worlds/breakout" for one of the reader's own. */
function label(name) {
  const parts = name.split("/");
  return name.includes("assets/worlds") ? parts.at(-1) : parts.slice(-2).join("/");
}

function gymLines(name) {
  return `from world_model.environment import WorldModelEnv

env = WorldModelEnv("${name}")
frame, info = env.reset(seed=0)
frame, reward, terminated, truncated, info = \\
    env.step(env.action_space.sample())`;
}

/** Large buttons for fingers: the game's own keys, directions on the left, fire on the right. */
export function buildPad(game, input) {
  game.addEventListener("world", () => {
    const button = (key) => {
      const one = document.createElement("button");
      one.textContent = ARROWS[key];
      one.setAttribute("aria-label", WORDS[key]);
      one.dataset.source = `pad ${key}`;
      one.dataset.key = game.world.keys[key];
      input.holdWith(one, { key: game.world.keys[key] });
      return one;
    };
    const present = Object.keys(ARROWS).filter((key) => key in game.world.keys);
    const sides = [present.filter((key) => key !== " "), present.filter((key) => key === " ")].map((keys) => {
      const side = document.createElement("div");
      side.append(...keys.map(button));
      return side;
    });
    byId("pad").replaceChildren(...sides);
  });
  game.addEventListener("held", () => {
    for (const one of byId("pad").querySelectorAll("button")) one.classList.toggle("down", one.dataset.key === input.held.at(-1)?.key);
  });
}
