// Speed: frames per second, milliseconds per stage, and milliseconds from a key press to the picture that shows it.

const STAGES = ["dynamics", "decode", "game", "sharpen", "transport", "draw"];

export class Stats {
  constructor(game) {
    this.arrivals = [];
    this.latencies = []; // ms from a press to the drawn frame, newest last, at most 1,000
    this.stages = Object.fromEntries(STAGES.map((stage) => [stage, []]));
    game.addEventListener("drawn", ({ detail }) => this.add(detail));
    game.addEventListener("welcome", ({ detail }) => {
      document.getElementById("device").textContent = detail.device;
      document.getElementById("threads").textContent = `device, ${detail.threads} thread${detail.threads > 1 ? "s" : ""}`;
    });
    setInterval(() => this.show(), 400);
  }

  add({ times, pressedAt }) {
    const now = performance.now();
    this.arrivals.push(now);
    for (const stage of STAGES) if (stage in times) this.keep(this.stages[stage], times[stage]);
    if (pressedAt !== null) {
      // what was drawn is on the screen after the browser's next animation frame
      requestAnimationFrame(() => setTimeout(() => this.keep(this.latencies, performance.now() - pressedAt)));
    }
  }

  keep(list, value) {
    list.push(value);
    if (list.length > 1000) list.shift();
  }

  show() {
    const now = performance.now();
    this.arrivals = this.arrivals.filter((time) => time > now - 2000);
    const rate = this.arrivals.length > 1 ? ((this.arrivals.length - 1) * 1000) / (this.arrivals.at(-1) - this.arrivals[0]) : null;
    this.write("fps", rate, 0);
    this.write("latency", mean(this.latencies.slice(-8)), 0);
    for (const stage of STAGES) this.write(`ms-${stage}`, mean(this.stages[stage].slice(-15)), 1);
  }

  /** A page shows the numbers for which it has a place. */
  write(id, value, digits) {
    const place = document.getElementById(id);
    if (place) place.textContent = value === null ? "–" : value.toFixed(digits);
  }
}

function mean(list) { return list.length ? list.reduce((sum, value) => sum + value, 0) / list.length : null; }
