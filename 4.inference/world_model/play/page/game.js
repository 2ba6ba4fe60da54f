// The game as the page plays it: it asks the server for one frame at a time and announces each as an event.
//
// Events: "welcome" (the list of worlds), "world" (a description), "begin" and "frame" ({head, dream, real, times}), "drawn" (times),
// "sharpened" (the newest frame again, larger or no longer), "sounded" (when what is heard), "state" (paused, start), "held" (keys went down or up), "notice".

import { Connection } from "./connection.js";

export class Game extends EventTarget {
  constructor() {
    super();
    this.world = null;
    this.paused = false;
    this.speed = 1;
    this.inspect = false;
    this.sharpened = false;
    this.sounding = false;
    this.start = { start: "game", index: 0, seed: 0, mirror: true };
    this.readInput = () => ({}); // the key or action that is held
    this.takePressTime = () => null; // when a press was made that no frame has shown yet
    this.noBall = []; // which of "dream" and "real game" waits for one
    this.playing = false; // a dream is under way
    this.stepping = false; // a step has been asked for and not answered yet: there is one at a time
    this.due = 0; // when the next frame is wanted
    this.wake = () => {};
    this.connection = new Connection((welcome) => this.welcome(welcome), () => this.end());
    document.addEventListener("visibilitychange", () => this.wake());
  }

  emit(name, detail) { this.dispatchEvent(new CustomEvent(name, { detail })); }
  notice(text, wrong = false) { this.emit("notice", { text, wrong }); }

  /** Send a message and turn an error into a notice. Returns the packet, or null. */
  async ask(message) {
    try {
      return await this.connection.ask(message);
    } catch (error) {
      this.notice(error.message, true);
      return null;
    }
  }

  async welcome(head) {
    this.emit("welcome", head);
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
    this.sharpened &&= this.world.can_sharpen;
    this.sounding &&= this.world.can_sound;
    this.start = { ...this.start, index: 0, mirror: Boolean(this.world.real_game) };
    Object.assign(this.start, this.world.real_game ? { start: "game" } : { start: "stored", index: this.world.first_start });
    this.emit("world", this.world);
    await this.begin();
  }

  /** Start a dream with the present settings, or after these changes to them. */
  async begin(changes = {}) {
    if (!this.world) return;
    const start = { ...this.start, ...changes };
    start.mirror &&= start.start === "game";
    await this.started(await this.ask({ do: "begin", ...start }), { start });
  }

  nextStart() {
    const index = this.start.start === "picture" ? this.start.index : this.start.index + 1;
    return this.begin({ index: this.start.start === "stored" ? index % this.world.num_starts : index });
  }

  /** Start the dream again where the real game is. */
  async resync() {
    if (!this.playing || !this.mirrored) return this.notice("There is no real game beside this dream.", true);
    await this.started(await this.ask({ do: "resync", seed: this.start.seed }), {}, true);
  }

  /** Start the dream again with the ball in flight. */
  async serve() {
    await this.started(await this.ask({ do: "serve", seed: this.start.seed }), {}, this.mirrored);
  }

  async started(packet, settings, resynchronized = false) {
    if (!packet) { // the controls show again what holds
      if (this.world) this.emit("state");
      return;
    }
    Object.assign(this, settings);
    this.noBall = [];
    this.playing = true;
    this.mirrored = packet.head.mirrored;
    this.due = performance.now() + 250; // a moment to look at the picture from which both start
    this.emit("begin", { ...this.pictures(packet), resynchronized });
    this.emit("state");
    this.notice(this.whatIsPlayed());
    this.wake();
  }

  whatIsPlayed() {
    if (this.mirrored) return "Both started from the same frames, and both get your keys.";
    if (!this.world.real_game) return `The dream alone: ${this.world.no_game}.`;
    if (this.start.start !== "game") return "The dream alone: the real game cannot start from a picture.";
    return "The dream alone.";
  }

  /** Split a packet's bytes into its pictures: the dream's and the real game's, then both larger, if they are sharpened. What
   *  comes after them is the dream's sound. */
  pictures(packet) {
    const { mirrored, scale = 1, samples = 0 } = packet.head;
    const size = this.world.width * this.world.height * 3;
    const pair = (first, length) => [first, first + length].map((start) => packet.bytes.subarray(start, start + length));
    const [dream, real] = pair(0, size);
    const shown = scale > 1 ? pair(mirrored ? 2 * size : size, size * scale ** 2) : [dream, real];
    const sound = packet.bytes.subarray(packet.bytes.length - samples);
    return { ...packet, dream, real: mirrored ? real : null, scale, shown, sound };
  }

  async sharpen(on = !this.sharpened) {
    const packet = await this.ask({ do: "sharpen", on });
    if (packet) this.sharpened = on;
    if (packet?.bytes.length) this.emit("sharpened", this.pictures(packet));
    this.emit("state");
  }

  /** Let the dream sound from the next frame on, or no longer. */
  async sound(on = !this.sounding) {
    if (await this.ask({ do: "sound", on })) this.sounding = on;
    this.emit("state");
  }

  pause(paused = !this.paused) {
    this.paused = paused;
    this.emit("state");
    this.wake();
  }

  setSpeed(speed) {
    this.speed = speed;
    this.due = 0;
    this.wake();
  }

  /** A key went down or up: the next frame comes at once, and the one after it waits longer instead. */
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

  async singleStep() {
    this.pause(true);
    await this.step();
  }

  async step() {
    if (!this.playing || this.stepping) return;
    this.hurried = false;
    this.stepping = true;
    const pressedAt = this.takePressTime();
    const asked = performance.now();
    const held = this.readInput();
    const serves = held.key === "FIRE" && this.noBall.includes("dream");
    const packet = serves ? await this.serve() : await this.ask({ do: "step", ...held, inspect: this.inspect });
    this.stepping = false;
    if (serves) return;
    if (!packet) { this.playing = false; return; }
    const drawn = performance.now();
    this.noBall = packet.head.no_ball;
    const frame = this.pictures(packet);
    frame.times = { ...packet.head.ms, transport: Math.max(0, packet.arrived - asked - packet.head.server_ms) };
    this.emit("frame", frame);
    frame.times.draw = performance.now() - drawn;
    this.emit("drawn", { times: frame.times, pressedAt });
    if (packet.head.over) {
      this.playing = false;
      this.notice("The real game is over. R plays it again, N plays the next one.");
    }
  }
}
