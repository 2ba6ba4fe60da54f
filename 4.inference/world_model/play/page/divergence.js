// How far the dream has drifted from the real game, as two live charts over the last frames.

const LENGTH = 150; // frames shown

class Chart {
  /** series: colour name -> list of values, newest last, null where unknown. */
  constructor(canvas, names, low, high) {
    this.canvas = canvas;
    this.series = Object.fromEntries(names.map((name) => [name, []]));
    this.low = low;
    this.high = high;
    this.marks = []; // where the dream was resynchronized
  }

  add(values) {
    for (const [name, list] of Object.entries(this.series)) {
      list.push(values[name] ?? null);
      if (list.length > LENGTH) list.shift();
    }
    this.marks = this.marks.map((place) => place - (this.full ? 1 : 0)).filter((place) => place >= 0);
    this.full = Object.values(this.series)[0].length === LENGTH;
    this.draw();
  }

  mark() { this.marks.push(Object.values(this.series)[0].length - 1); }

  clear() {
    for (const list of Object.values(this.series)) list.length = 0;
    this.marks = [];
    this.full = false;
    this.draw();
  }

  draw() {
    const ratio = devicePixelRatio || 1;
    const [width, height] = [this.canvas.clientWidth, this.canvas.clientHeight];
    if (!width) return;
    if (this.canvas.width !== Math.round(width * ratio)) {
      this.canvas.width = Math.round(width * ratio);
      this.canvas.height = Math.round(height * ratio);
    }
    const pen = this.canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    const style = getComputedStyle(document.documentElement);
    const left = 26;
    const y = (value) => 6 + (1 - (Math.min(Math.max(value, this.low), this.high) - this.low) / (this.high - this.low)) * (height - 12);
    const x = (place) => left + (place / (LENGTH - 1)) * (width - left - 2);
    pen.font = "10px system-ui";
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    for (const value of [this.low, (this.low + this.high) / 2, this.high]) {
      pen.strokeStyle = style.getPropertyValue("--line");
      pen.fillStyle = style.getPropertyValue("--faint");
      pen.beginPath();
      pen.moveTo(left, y(value));
      pen.lineTo(width, y(value));
      pen.stroke();
      pen.fillText(Math.round(value), left - 5, y(value));
    }
    pen.setLineDash([3, 3]);
    pen.strokeStyle = style.getPropertyValue("--faint");
    for (const place of this.marks) {
      pen.beginPath();
      pen.moveTo(x(place), 4);
      pen.lineTo(x(place), height - 4);
      pen.stroke();
    }
    pen.setLineDash([]);
    pen.lineWidth = 1.75;
    pen.lineJoin = "round";
    for (const [name, list] of Object.entries(this.series)) {
      pen.strokeStyle = style.getPropertyValue(`--${name}`);
      pen.beginPath();
      let joined = false;
      list.forEach((value, place) => {
        if (value !== null) pen[joined ? "lineTo" : "moveTo"](x(place), y(value));
        joined = value !== null;
      });
      pen.stroke();
    }
    pen.lineWidth = 1;
  }
}

const rounded = (value, unit) => (value === null || value === undefined ? "–" : `${value.toFixed(value < 10 ? 1 : 0)}${unit}`);

export function showDivergence(game) {
  const [card, playerChart, psnrNow, playerNow] = ["divergence", "player-chart", "psnr-now", "player-now"].map((id) => document.getElementById(id));
  const psnr = new Chart(document.getElementById("psnr"), ["dream"], 5, 45);
  const places = new Chart(document.getElementById("places"), ["real", "dream"], 0, 64);
  game.addEventListener("begin", ({ detail }) => {
    card.hidden = !detail.real;
    places.high = Math.max(game.world.width, game.world.height);
    for (const chart of [psnr, places]) {
      if (detail.resynchronized) chart.mark();
      else chart.clear();
    }
  });
  game.addEventListener("frame", ({ detail }) => {
    const { divergence } = detail.head;
    if (!divergence) return;
    psnr.add({ dream: divergence.moving_psnr_db });
    psnrNow.textContent = rounded(divergence.moving_psnr_db, " dB");
    playerChart.hidden = !divergence.player;
    if (!divergence.player) return;
    const [real, dream] = divergence.player;
    places.add({ real, dream });
    playerNow.textContent = real === null || dream === null ? "–" : `${Math.abs(real - dream).toFixed(1)} px`;
  });
  addEventListener("resize", () => { psnr.draw(); places.draw(); });
}
