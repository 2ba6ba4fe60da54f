// The page's own modules outside a browser: node tests/web/dream.mjs <folder that export_web.py built> <<< '{"do": ..., ...}'
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [, , built] = process.argv;
const { Dream } = await import(pathToFileURL(`${built}/dream.js`));
const { Random, sampleToken } = await import(pathToFileURL(`${built}/sampling.js`));
const ort = await import(pathToFileURL(`${built}/ort.wasm.min.mjs`));

const JOBS = {
  /** Tokens and pictures of a dream under these actions. */
  async dream({ world, start, seed, actions, sampling }) {
    ort.env.wasm.numThreads = 1;
    ort.env.wasm.wasmBinary = readFileSync(`${built}/ort-wasm-simd-threaded.wasm`);
    const dream = await Dream.load(ort, async (name) => new Uint8Array(readFileSync(`${built}/worlds/${world}/${name}`)));
    await dream.begin(start, seed);
    const frames = [];
    for (const action of actions) {
      const { tokens, picture, passes, ms } = await dream.step(action, sampling);
      frames.push({ tokens, picture: Buffer.from(picture).toString("base64"), taken: dream.action, passes: passes.length, ms });
    }
    return frames;
  },

  /** How often each token is sampled from these logits. */
  tokens({ logits, sampling, count }) {
    const [random, counts] = [new Random(0), new Array(logits.length).fill(0)];
    for (let number = 0; number < count; number += 1) counts[sampleToken(Float32Array.from(logits), sampling, random).token] += 1;
    return counts;
  },
};

const job = JSON.parse(readFileSync(0, "utf-8"));
process.stdout.write(JSON.stringify(await JOBS[job.do](job)), () => process.exit(0));
