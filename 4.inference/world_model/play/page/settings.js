// The fields that change the game: which world, where it starts, how fast it runs, how tokens are sampled.

const byId = (id) => document.getElementById(id);

export function wireSettings(game) {
  const wholeNumber = (id) => Math.min(Math.max(Math.floor(Number(byId(id).value)) || 0, 0), 2 ** 31 - 1);

  byId("world").addEventListener("change", () => game.open(byId("world").value));
  byId("mirror").addEventListener("change", () => game.begin(byId("mirror").checked ? { start: "game", mirror: true } : { mirror: false }));
  byId("sharpen").addEventListener("change", () => game.sharpen(byId("sharpen").checked));
  byId("sound").addEventListener("change", () => game.sound(byId("sound").checked));
  byId("speed").addEventListener("change", () => game.setSpeed(Number(byId("speed").value)));
  byId("start").addEventListener("change", () => {
    if (byId("start").value === "picture") return byId("upload").click();
    return game.begin({ start: byId("start").value, index: byId("start").value === "stored" ? game.world.first_start : 0 });
  });
  byId("index").addEventListener("change", () => game.begin({ index: wholeNumber("index") }));
  byId("seed").addEventListener("change", () => game.begin({ seed: wholeNumber("seed") }));

  game.addEventListener("welcome", ({ detail }) => {
    byId("world").replaceChildren(...detail.worlds.map((name) => new Option(shortName(name), name)));
    byId("world").value = detail.first;
  });
  game.addEventListener("world", () => {
    byId("mirror").disabled = byId("start").options[0].disabled = !game.world.real_game;
    byId("sampling").replaceChildren(...samplingControls(game));
    byId("gym").textContent = gymLines(game.world.name);
  });
  game.addEventListener("state", () => {
    byId("start").value = game.start.start;
    byId("index").value = game.start.index;
    byId("seed").value = game.start.seed;
    byId("mirror").checked = game.start.mirror;
    byId("sharpen").checked = game.sharpened;
    byId("can-sharpen").hidden = !game.world.can_sharpen;
    byId("sound").checked = game.sounding;
    byId("can-sound").hidden = !game.world.can_sound;
  });
}

/** One labeled control for each sampling setting that the world's dynamics model has; the server lists them. */
export function samplingControls(game) {
  let settings = game.world.sampling;
  const updates = []; // each shows the present value of one setting

  async function change(name, value) {
    const packet = await game.ask({ do: "sampling", name, value });
    settings = packet ? packet.head : settings;
    for (const update of updates) update();
  }

  return game.world.sampling_controls.map((control) => {
    const [label, now, help] = ["label", "output", "small"].map((tag) => document.createElement(tag));
    const field = samplingField(control);
    label.htmlFor = field.id;
    label.append(`${control.name.replaceAll("_", " ")} `, now, field, help);
    help.textContent = control.help;
    const value = () => {
      if (control.kind === "bool") return field.checked;
      if (control.kind === "str") return field.value;
      return field.value === "" ? null : Number(field.value);
    };
    field.addEventListener(field.type === "range" ? "input" : "change", () => change(control.name, value()));
    updates.push(() => {
      field.value = settings[control.name] ?? "";
      field.checked = settings[control.name] === true;
      if (field.type === "range") now.textContent = settings[control.name];
    });
    updates.at(-1)();
    return label;
  });
}

/** A menu for choices, a switch for a bool, a slider for a number, and a plain field for a number that may be left empty.
 *  A slider ends at a multiple of the default, where the interesting values are, even if larger ones are allowed. */
function samplingField({ name, kind, default: byDefault, smallest, largest, choices }) {
  const field = document.createElement(choices.length ? "select" : "input");
  field.id = `sampling-${name}`;
  if (choices.length) field.replaceChildren(...choices.map((choice) => new Option(choice)));
  else if (kind === "bool") field.type = "checkbox";
  else if (byDefault === null) Object.assign(field, { type: "number", min: smallest, max: largest, placeholder: "none" });
  else if (kind === "int") Object.assign(field, { type: "range", min: smallest, max: Math.min(largest, 4 * byDefault), step: 1 });
  else Object.assign(field, { type: "range", min: smallest, max: Math.min(largest, 2 * byDefault), step: 0.01 });
  return field;
}

/** "breakout" for a world that came with the repository, "worlds/breakout" for one of the reader's own. */
function shortName(name) {
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
