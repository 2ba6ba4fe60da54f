// Runs the networks beside the page, so that the page never waits for them. It answers the messages that player.py answers.

import { Dream } from "./dream.js";
import * as ort from "./ort.wasm.min.mjs";

const RUNTIME = "ort-wasm-simd-threaded.wasm";
const dreams = new Map(); // world -> its networks, once they are loaded
let worlds = []; // name and bytes of each
let runtimeBytes = 0;
let dream = null;
let sampling = {};
let frame = 0;
let passes = null; // of the newest frame, where it was inspected

/** The bytes of a file. onBytes: called with the size of each piece that arrives. */
async function read(name, onBytes = () => {}) {
  const response = await fetch(name.split("/").map(encodeURIComponent).join("/")).catch(() => null);
  if (!response?.ok) throw new Error(`${name} cannot be loaded; is there a network?`);
  const pieces = [];
  for (let reader = response.body.getReader(), piece; !(piece = await reader.read()).done;) {
    pieces.push(piece.value);
    onBytes(piece.value.length);
  }
  return new Uint8Array(await new Blob(pieces).arrayBuffer());
}

async function load(name) {
  let [loaded, total] = [0, worlds.find((world) => world.name === name).bytes];
  const onBytes = (count) => {
    loaded += count;
    postMessage({ progress: `loading ${name}: ${(loaded / 1e6).toFixed(1)} of ${(total / 1e6).toFixed(1)} MB` });
  };
  if (!ort.env.wasm.wasmBinary) {
    total += runtimeBytes;
    ort.env.wasm.wasmBinary = await read(RUNTIME, onBytes);
  }
  return Dream.load(ort, (file) => read(`worlds/${name}/${file}`, onBytes));
}

const MESSAGES = {
  async hello() {
    ort.env.wasm.numThreads = Number(new URL(self.location.href).searchParams.get("threads"));
    ort.env.wasm.wasmPaths = new URL("./", import.meta.url).href;
    ({ worlds, runtime_bytes: runtimeBytes } = JSON.parse(new TextDecoder().decode(await read("worlds.json"))));
    const names = worlds.map(({ name }) => name);
    return [{ worlds: names, first: names[0], device: "WASM", threads: ort.env.wasm.numThreads }];
  },

  async open({ world }) {
    if (!dreams.has(world)) dreams.set(world, await load(world));
    dream = dreams.get(world);
    const defaults = Object.fromEntries(dream.world.sampling_controls.map((control) => [control.name, control.default]));
    sampling = { ...defaults, ...sampling }; // settings stay where they are
    return [{ ...dream.world, sampling, start_pictures: dream.starts }];
  },

  async begin({ index, seed }) {
    await dream.begin(index, seed);
    [frame, passes] = [0, null];
    return [{ frame, mirrored: false }, dream.startPicture(index)];
  },

  async step({ key, action, inspect }) {
    const begun = performance.now();
    const number = key === undefined ? action ?? -1 : dream.world.action_map[key];
    const made = await dream.step(number, sampling);
    frame += 1;
    passes = inspect ? made.passes : null;
    const head = { frame, mirrored: false, action: number, no_ball: [], ms: made.ms, server_ms: performance.now() - begun };
    return [inspect ? { ...head, inspect: facts(made) } : head, made.picture];
  },

  async sampling({ name, value }) {
    const { smallest, largest } = dream.world.sampling_controls.find((control) => control.name === name);
    sampling = { ...sampling, [name]: Math.min(Math.max(value ?? smallest, smallest), largest) };
    return [sampling];
  },

  async passes() {
    if (!passes) throw new Error("there are no decoding passes to show; step with the inspector open first");
    const pictures = await dream.drawPasses(passes);
    const bytes = new Uint8Array(await new Blob(pictures).arrayBuffer());
    return [{ unmasked: passes.map(({ unmasked }) => unmasked) }, bytes];
  },
};

/** For the inspector: each token, its probability, and the pass from 1 on that unmasked it. */
function facts({ tokens, passes: all }) {
  const unmaskedIn = tokens.map((_, place) => 1 + all.findIndex(({ unmasked }) => unmasked[place]));
  return { grid: dream.world.grid, tokens, probability: all.at(-1).probability, unmasked_in: unmaskedIn };
}

let turn = Promise.resolve(); // one message at a time, in their order
onmessage = ({ data: { id, ...message } }) => {
  turn = turn.then(async () => {
    try {
      const [head, bytes = new Uint8Array()] = await MESSAGES[message.do](message);
      postMessage({ id, head, bytes });
    } catch (error) {
      postMessage({ id, error: error.message });
    }
  });
};
