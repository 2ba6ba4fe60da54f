// How the tokens of a frame are sampled: masking.py and action_prior.py of chapter 3, once more in JavaScript.
// tests/web/test_web_page.py compares the two.

/** Random numbers in [0, 1) from a seed: the same seed gives the same dream (mulberry32, by Tommy Ettinger). */
export class Random {
  constructor(seed) { this.state = seed >>> 0; }

  next() {
    this.state = (this.state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(this.state ^ (this.state >>> 15), this.state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  }

  /** One of the indices of `weights`, each with a probability in proportion to its weight. */
  choose(weights) {
    let left = this.next() * weights.reduce((sum, weight) => sum + weight, 0);
    for (let index = 0; index < weights.length; index += 1) {
      left -= weights[index];
      if (left < 0) return index;
    }
    return weights.findLastIndex((weight) => weight > 0); // where rounding has eaten the rest
  }
}

/** How many tokens are still masked after pass `step`, 1 .. numSteps: 4, 2, 1, 0 of four passes. */
export function tokensLeftMasked(step, numSteps, numTokens) {
  return step >= numSteps ? 0 : Math.min(2 ** (numSteps - step - 1), numTokens - step);
}

/** The softmax of logits divided by a temperature. A plain loop: it runs over every token of every patch. */
export function softmax(logits, temperature = 1) {
  let largest = -Infinity;
  for (let token = 0; token < logits.length; token += 1) if (logits[token] > largest) largest = logits[token];
  const shares = new Float64Array(logits.length);
  let sum = 0;
  for (let token = 0; token < logits.length; token += 1) sum += shares[token] = Math.exp((logits[token] - largest) / temperature);
  for (let token = 0; token < logits.length; token += 1) shares[token] /= sum;
  return shares;
}

/** The nucleus: the fewest tokens that together have the probability topP, most likely first. */
export function nucleus(probabilities, topP) {
  // tokens less likely than all others together could fill the rest of topP with are never in it: few are left to sort
  const smallest = (1 - topP) / probabilities.length;
  const candidates = [];
  for (let token = 0; token < probabilities.length; token += 1) if (probabilities[token] > smallest) candidates.push(token);
  candidates.sort((a, b) => probabilities[b] - probabilities[a]);
  let likelier = 0; // the probability of all tokens before this one
  const end = candidates.findIndex((token) => {
    const outside = likelier >= topP;
    likelier += probabilities[token];
    return outside;
  });
  return end < 0 ? candidates : candidates.slice(0, end);
}

/** Sample a token from its logits. Returns the token and the probability that the model gave it. */
export function sampleToken(logits, { temperature, top_p: topP }, random) {
  const probabilities = softmax(logits);
  let token;
  if (temperature === 0) {
    token = probabilities.reduce((best, share, one) => (share > probabilities[best] ? one : best), 0);
  } else {
    const scaled = temperature === 1 ? probabilities : softmax(logits, temperature);
    const candidates = nucleus(scaled, topP);
    token = candidates[random.choose(candidates.map((candidate) => scaled[candidate]))];
  }
  return { token, probability: probabilities[token] };
}

/** The action to which the key of the wanted one leads in this situation: chapter 3's `action_of_key`. prior: probabilities of the
 *  next action. keyWeights: row a, column c is P(the key of action a | action c), raised to the guidance. */
export function actionOfKey(wanted, prior, keyWeights) {
  if (wanted < 0) return wanted;
  const scores = keyWeights[wanted].map((weight, action) => weight * prior[action]);
  const best = Math.max(...scores);
  return best > 0 ? scores.indexOf(best) : wanted;
}
