// The other end of the play page's line: where that asks a server (its connection.js), this asks a worker, in the same messages.

/** Threads for the networks: half of the cores, since the browser needs some too; one where the page may not share memory. */
function numThreads() {
  const asked = Number(new URLSearchParams(location.search).get("threads"));
  return crossOriginIsolated ? asked || Math.min(4, Math.ceil(navigator.hardwareConcurrency / 2)) : 1;
}

/** Have the service worker keep everything that the page loads, beginning with what it has loaded before it came. */
async function keepForOffline() {
  try {
    if (navigator.serviceWorker.controller) return; // everything has come through it already
    await navigator.serviceWorker.register("service_worker.js");
    const { active } = await navigator.serviceWorker.ready;
    if (active.state === "activating") await new Promise((resolve) => active.addEventListener("statechange", resolve, { once: true }));
    const loaded = performance.getEntriesByType("resource").map(({ name }) => name);
    await Promise.all([location.href, ...loaded].filter((url) => url.startsWith("http")).map((url) => fetch(url)));
  } catch { /* no service workers here, for instance in a private window: then there is no page without a network */ }
}

export class Connection {
  /** onWelcome: called with the first answer. */
  constructor(onWelcome) {
    this.waiting = new Map(); // number of a message -> its promise
    this.numAsked = 0;
    this.onProgress = () => {};
    this.started = keepForOffline().then(() => this.start());
    this.ask({ do: "hello" }).then(({ head }) => onWelcome(head), (error) => this.onProgress(error.message));
  }

  start() {
    this.worker = new Worker(`worker.js?threads=${numThreads()}`, { type: "module" });
    this.worker.onmessage = ({ data }) => this.receive(data);
    this.worker.onerror = (event) => {
      for (const { reject } of this.waiting.values()) reject(new Error(event.message || "the worker could not be started"));
      this.waiting.clear();
    };
  }

  receive({ id, progress, error, head, bytes }) {
    if (progress !== undefined) { this.onProgress(progress); return; }
    const { resolve, reject } = this.waiting.get(id);
    this.waiting.delete(id);
    if (error) reject(new Error(error));
    else resolve({ head, bytes, arrived: performance.now() });
  }

  /** Send {do: "step", ...}. Returns a promise of {head, bytes}, rejected with a sentence. */
  async ask(message) {
    await this.started;
    const id = this.numAsked += 1;
    this.worker.postMessage({ ...message, id });
    return new Promise((resolve, reject) => this.waiting.set(id, { resolve, reject }));
  }
}
