// The game as the page plays it: it asks for one frame at a time and tells everybody who listens.
//
// Events: "world" (a description), "begin" and "frame" ({head, dream, real, times}), "state" (paused, sampling, start), "notice".

import { Connection } from "./connection.js";

export class Game extends EventTarget {
  constructor() {
    super();
    this.world = null;
    this.paused = false;
    this.speed = 1;
    this.inspect = false;
    this.start = { start: "game", index: 0, seed: 0, mirror: true };
    this.wish = () => ({});
    this.takeChange = () => null;
    this.playing = false; // a dream has begun
    this.due = 0;
    this.wake = () => {};
    this.connection = new Connection((welcome) => this.welcome(welcome), () => this.end());
    document.addEventListener("visibilitychange", () => this.wake());
  }

  tell(name, detail) { this.dispatchEvent(new CustomEvent(name, { detail })); }
  notice(text, wrong = false) { this.tell("notice", { text, wrong }); }

  /** Ask, and turn what goes wrong into a notice. Returns the packet, or null. */
  async ask(question) {
    try {
      return await this.connection.ask(question);
    } catch (error) {
      this.notice(error.message, true);
      return null;
    }
  }

  async welcome(head) {
    this.tell("welcome", head);
    await this.open(head.first);
    this.run();
  }

  end() {
    this.world = null;
    this.playing = false;
    this.notice("The server is gone. Start it again and reload this page.", true);
  }

  async open(name) {
    this.playing = false;
    this.notice("loading …");
    const packet = await this.ask({ do: "open", world: name });
    if (!packet) return;
    this.world = packet.head;
    this.start = { ...this.start, start: this.world.real_game ? "game" : "stored", index: 0, mirror: Boolean(this.world.real_game) };
    this.tell("world", this.world);
    await this.begin();
  }

  /** Begin where the settings say, or where they say after these changes. */
  async begin(changes = {}) {
    if (!this.world) return;
    const start = { ...this.start, ...changes };
    await this.started(await this.ask({ do: "begin", ...start }), { start });
  }

  /** The dream begins again from where the real game is. */
  async resync() {
    if (!this.playing || !this.mirrored) return this.notice("There is no real game beside this dream.", true);
    await this.started(await this.ask({ do: "resync", seed: this.start.seed }), {}, true);
  }

  async started(packet, settings, resynchronised = false) {
    if (!packet) return;
    Object.assign(this, settings);
    this.playing = true;
    this.mirrored = packet.head.mirrored;
    this.due = performance.now() + 250; // a moment to look at the picture both begin with
    this.tell("begin", { ...this.pictures(packet), resynchronised });
    this.tell("state");
    this.notice(this.whatIsPlayed());
    this.wake();
  }

  whatIsPlayed() {
    if (this.mirrored) return "Both began with the same pictures, and both get your keys.";
    if (!this.world.real_game) return `The dream alone: ${this.world.no_game}.`;
    if (this.start.start !== "game") return "The dream alone: the real game cannot begin at a picture.";
    return "The dream alone.";
  }

  /** Split a packet's bytes into the pictures that it holds. */
  pictures(packet) {
    const size = this.world.width * this.world.height * 3;
    return { ...packet, dream: packet.bytes.subarray(0, size), real: packet.head.mirrored ? packet.bytes.subarray(size, 2 * size) : null };
  }

  pause(paused = !this.paused) {
    this.paused = paused;
    this.tell("state");
    this.wake();
  }

  /** A key went down or up: the next frame need not wait for its time, the one after it waits longer instead. */
  hurry() { this.hurried = true; this.wake(); }

  async run() {
    for (;;) {
      const now = performance.now();
      const idle = !this.playing || this.paused || document.hidden;
      if (idle || (now < this.due && !this.hurried)) {
        await new Promise((resolve) => { this.wake = resolve; if (!idle) setTimeout(resolve, this.due - now); });
        continue;
      }
      this.due = Math.max(this.due + 1000 / (this.world.frames_per_second * this.speed), now - 50);
      await this.step();
    }
  }

  async step() {
    if (!this.playing) return;
    this.hurried = false;
    const pressedAt = this.takeChange();
    const asked = performance.now();
    const packet = await this.ask({ do: "step", ...this.wish(), inspect: this.inspect });
    if (!packet) { this.playing = false; return; }
    const drawn = performance.now();
    const frame = this.pictures(packet);
    frame.times = { ...packet.head.ms, transport: Math.max(0, packet.arrived - asked - packet.head.server_ms) };
    this.tell("frame", frame);
    frame.times.draw = performance.now() - drawn;
    this.tell("drawn", { times: frame.times, pressedAt });
    if (packet.head.over) {
      this.playing = false;
      this.notice("The real game is over. R plays it again, N the next one.");
    }
  }
}
