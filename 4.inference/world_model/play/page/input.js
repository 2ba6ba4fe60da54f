// What the player holds down: keys of the keyboard, fingers on buttons. The newest one counts.

export const ARROWS = { ArrowLeft: ["←", "left"], ArrowUp: ["↑", "up"], ArrowDown: ["↓", "down"], ArrowRight: ["→", "right"], " ": ["fire", "fire"] };
/** Elements that use arrows, digits and letters themselves. */
const TYPING = "input, select, textarea, [role=application]";
/** Elements that space and enter click. */
const CLICKING = "button, summary, a, input, select";

export class Input {
  /** onChange: called when what is held has changed. */
  constructor(onChange) {
    this.held = []; // newest last: {key: "LEFT"} or {action: 3}, each with the `source` that holds it
    this.pressedAt = null; // when a press was made that no frame has shown yet
    this.keys = {};
    this.numActions = 0;
    this.onChange = onChange;
    addEventListener("keydown", (event) => this.down(event));
    addEventListener("keyup", (event) => this.release(`key ${event.code}`));
    addEventListener("blur", () => this.releaseAll());
    this.giveKeysBack();
  }

  /** After a click or a touch the keys belong to the game again. From the keyboard, Escape gives them back, and Enter in a number. */
  giveKeysBack() {
    let byPointer = false;
    addEventListener("pointerdown", () => { byPointer = true; }, true);
    addEventListener("keydown", () => { byPointer = false; }, true);
    addEventListener("pointerup", () => {
      if (document.activeElement?.matches("button, summary, [tabindex], input[type=range], input[type=checkbox]")) document.activeElement.blur();
    });
    addEventListener("change", (event) => { if (byPointer) event.target.blur(); });
  }

  /** The key or action to send with the next step. */
  current() {
    const newest = this.held.at(-1);
    if (newest) return newest.action === undefined ? { key: newest.key } : { action: newest.action };
    if ("" in this.keys) return { key: this.keys[""] };
    return this.numActions ? { action: 0 } : {};
  }

  /** When the press was made that no frame has shown yet; null if there is none, and on every later call. */
  takePressTime() {
    const pressedAt = this.pressedAt;
    this.pressedAt = null;
    return pressedAt;
  }

  press(source, what) {
    this.held = this.held.filter((one) => one.source !== source);
    this.held.push({ source, ...what });
    this.pressedAt = performance.now();
    this.onChange();
  }

  release(source) {
    const count = this.held.length;
    this.held = this.held.filter((one) => one.source !== source);
    if (this.held.length !== count) this.onChange();
  }

  releaseAll() {
    this.held = [];
    this.onChange();
  }

  /** While an element is pressed, by mouse, finger, space or enter, it holds a key or an action. */
  holdWith(element, what) {
    const source = `element ${element.id || element.dataset.source}`;
    element.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      element.setPointerCapture(event.pointerId);
      this.press(source, what);
    });
    for (const end of ["pointerup", "pointercancel", "lostpointercapture", "blur"]) {
      element.addEventListener(end, () => this.release(source));
    }
    element.addEventListener("contextmenu", (event) => event.preventDefault()); // a long touch
    element.addEventListener("keydown", (event) => {
      if ((event.key === " " || event.key === "Enter") && !event.repeat) this.press(source, what);
    });
    element.addEventListener("keyup", () => this.release(source));
  }

  down(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const target = event.target instanceof Element ? event.target : document.body;
    if (event.key === "Escape" || (event.key === "Enter" && target.matches("input[type=number]"))) document.activeElement?.blur();
    if (target.matches(TYPING) && !target.matches("input[type=checkbox]")) return;
    if ((event.key === " " || event.key === "Enter") && target.matches(CLICKING)) return;
    if (event.key.startsWith("Arrow") || event.key === " ") event.preventDefault(); // the page must not scroll
    if (event.repeat) return;
    if (event.key !== "" && event.key in this.keys) this.press(`key ${event.code}`, { key: this.keys[event.key] });
    else if (/^[0-9]$/.test(event.key) && Number(event.key) < this.numActions) this.press(`key ${event.code}`, { action: Number(event.key) });
    else document.querySelector(`[aria-keyshortcuts="${CSS.escape(event.key.toUpperCase())}"]`)?.click();
  }
}

/** Large buttons for fingers: the game's own keys, directions on the left, fire on the right. */
export function showTouchPad(game, input) {
  const pad = document.getElementById("pad");
  game.addEventListener("world", () => {
    const [directions, fire] = [document.createElement("div"), document.createElement("div")];
    for (const [key, [sign, word]] of Object.entries(ARROWS)) {
      if (!(key in game.world.keys)) continue;
      const button = document.createElement("button");
      button.textContent = key === " " && game.world.ball_game ? "serve" : sign;
      button.setAttribute("aria-label", word);
      button.dataset.source = `pad ${key}`;
      button.dataset.key = game.world.keys[key];
      input.holdWith(button, { key: game.world.keys[key] });
      (key === " " ? fire : directions).append(button);
    }
    pad.replaceChildren(directions, fire);
  });
  game.addEventListener("held", () => {
    for (const button of pad.querySelectorAll("button")) button.classList.toggle("down", button.dataset.key === input.held.at(-1)?.key);
  });
}
