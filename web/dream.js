// One world and the dream in it: what world.py and maskgit.py do in Python, around three networks in ONNX files.

import { Random, actionOfKey, sampleToken, tokensLeftMasked } from "./sampling.js";

/** A network with a cache of keys and values: it goes in with every call, and a frame's own ones come out. */
class CachedNetwork {
  /** shape: (blocks, 2, N, heads, window - 1, head_dim) of the cache. */
  constructor(ort, session, shape) {
    Object.assign(this, { ort, session, shape });
    this.clear();
  }

  clear() {
    this.position = 0; // frames remembered so far
    this.cache = new Float32Array(this.shape.reduce((size, side) => size * side));
  }

  /** Call the network for the frame after those remembered. inputs: name -> whole numbers. outputs: the names wanted. */
  run(inputs, outputs) {
    const feeds = { cache: new this.ort.Tensor("float32", this.cache, this.shape) };
    for (const [name, numbers] of Object.entries({ ...inputs, position: [this.position] })) feeds[name] = wholeNumbers(this.ort, numbers);
    return this.session.run(feeds, outputs);
  }

  /** Put a frame's own keys and values into the oldest slot of the cache. */
  remember(own) {
    const [slots, length] = this.shape.slice(-2);
    const slot = this.position % slots;
    for (let row = 0; row * length < own.length; row += 1) {
      this.cache.set(own.subarray(row * length, (row + 1) * length), (row * slots + slot) * length);
    }
    this.position += 1;
  }
}

const wholeNumbers = (ort, numbers) => new ort.Tensor("int32", Int32Array.from(numbers), numbers.length > 1 ? [1, numbers.length] : [1]);

export class Dream {
  /** ort: onnxruntime. read: name of a file -> promise of its bytes. */
  static async load(ort, read) {
    const options = { extra: { session: { disable_quant_qdq: "1" } } }; // turn 8-bit weights into floats once, not in every call
    const open = async (name) => ort.InferenceSession.create(await read(`${name}.onnx`), options);
    const world = JSON.parse(new TextDecoder().decode(await read("world.json")));
    const dream = new Dream();
    dream.ort = ort;
    dream.world = world;
    dream.starts = await read("starts.rgb"); // the last frame of each start, RGB
    dream.dynamics = new CachedNetwork(ort, await open("dynamics"), world.caches.dynamics);
    dream.decoder = new CachedNetwork(ort, await open("decoder"), world.caches.decoder);
    dream.prior = world.key_weights ? await open("prior") : null;
    return dream;
  }

  /** The last real frame of a start, (H, W, 3) RGB. */
  startPicture(index) {
    const size = this.world.height * this.world.width * 3;
    return this.starts.slice(index * size, (index + 1) * size);
  }

  /** Let both networks read the frames of a start. */
  async begin(index, seed) {
    this.random = new Random(seed);
    this.dynamics.clear();
    this.decoder.clear();
    for (const [number, tokens] of this.world.start_tokens[index].entries()) {
      await this.append(tokens, this.world.start_actions[index][number]);
      await this.draw(tokens);
    }
  }

  /** The next frame under an action, -1 for "unknown". Returns its tokens, its picture (H, W, 3), milliseconds, and the passes. */
  async step(action, sampling) {
    const begun = performance.now();
    const chosen = this.prior ? await this.actionOfKey(action) : action;
    const { tokens, passes } = await this.fillIn(chosen, sampling);
    await this.append(tokens, chosen);
    const predicted = performance.now();
    this.decoderBefore = { cache: this.decoder.cache.slice(), position: this.decoder.position };
    const picture = await this.draw(tokens);
    return { tokens, picture, passes, ms: { dynamics: predicted - begun, decode: performance.now() - predicted } };
  }

  /** The action to which its key leads here, according to the action prior. */
  async actionOfKey(action) {
    const [older, newer, previous] = [this.older, this.tokens, [this.action]].map((numbers) => wholeNumbers(this.ort, numbers));
    const { probabilities } = await this.prior.run({ older, newer, previous });
    return actionOfKey(action, probabilities.data, this.world.key_weights);
  }

  /** Decode the tokens of a frame in a few passes. After each, the least confident ones are masked again. */
  async fillIn(action, sampling) {
    const { codebook_size: codebookSize, start_tokens: starts } = this.world;
    const numTokens = starts[0][0].length;
    const numSteps = Math.min(sampling.num_steps, numTokens);
    const tokens = new Array(numTokens).fill(codebookSize); // one more than the last token: masked
    const probability = new Array(numTokens).fill(0);
    const passes = []; // what the frame would be if this pass were the last
    let masked = [...tokens.keys()];
    for (let step = 1; step <= numSteps; step += 1) {
      const { logits } = await this.dynamics.run({ tokens, action: [action] }, ["logits"]);
      for (const place of masked) {
        const row = logits.data.subarray(place * codebookSize, (place + 1) * codebookSize);
        const sampled = sampleToken(row, sampling, this.random);
        [tokens[place], probability[place]] = [sampled.token, sampled.probability];
      }
      const complete = [...tokens];
      masked.sort((a, b) => probability[a] - probability[b]);
      masked = masked.slice(0, tokensLeftMasked(step, numSteps, numTokens));
      for (const place of masked) tokens[place] = codebookSize;
      passes.push({ tokens: complete, probability: [...probability], unmasked: tokens.map((token) => token !== codebookSize) });
    }
    return { tokens, passes };
  }

  /** Remember a finished frame and the action that led to it. */
  async append(tokens, action) {
    const { own } = await this.dynamics.run({ tokens, action: [action] }, ["own"]);
    this.dynamics.remember(own.data);
    this.older = this.dynamics.position > 1 ? this.tokens : tokens;
    [this.tokens, this.action] = [tokens, action];
  }

  /** The picture of a frame, which the decoder then remembers. */
  async draw(tokens) {
    const { picture, own } = await this.decoder.run({ tokens }, ["picture", "own"]);
    this.decoder.remember(own.data);
    return picture.data;
  }

  /** The pictures of the newest frame's passes, one after the other. The decoder stays as it is. */
  async drawPasses(passes) {
    const now = { cache: this.decoder.cache, position: this.decoder.position };
    Object.assign(this.decoder, this.decoderBefore);
    const pictures = [];
    for (const { tokens } of passes) pictures.push((await this.decoder.run({ tokens }, ["picture"])).picture.data);
    Object.assign(this.decoder, now);
    return pictures;
  }
}
