// What the player holds down: keys of the keyboard, fingers on buttons. The newest one counts.

/** Elements that need arrows, digits and letters for themselves. */
const TYPING = "input, select, textarea, [role=application]";
/** Elements for which space and enter mean a click. */
const CLICKING = "button, summary, a, input, select";

export class Input {
  /** onChange: called when what is held has changed. shortcuts: letter -> function. */
  constructor(onChange, shortcuts) {
    this.held = []; // newest last: {key: "LEFT"} or {action: 3}, each with the `source` that holds it
    this.changedAt = null; // when a press was made that no frame has shown yet
    this.keys = {};
    this.numActions = 0;
    this.onChange = onChange;
    addEventListener("keydown", (event) => this.down(event, shortcuts));
    addEventListener("keyup", (event) => this.release(`key ${event.code}`));
    addEventListener("blur", () => this.releaseAll());
    this.giveKeysBack();
  }

  /** After a click or a touch the keys belong to the game again; who uses the keyboard has Escape, and Enter in a number. */
  giveKeysBack() {
    let byPointer = false;
    addEventListener("pointerdown", () => { byPointer = true; }, true);
    addEventListener("keydown", () => { byPointer = false; }, true);
    addEventListener("pointerup", () => {
      if (document.activeElement?.matches("button, summary, [tabindex], input[type=range], input[type=checkbox]")) document.activeElement.blur();
    });
    addEventListener("change", (event) => { if (byPointer) event.target.blur(); });
  }

  /** What to ask the server for. */
  wish() {
    const newest = this.held.at(-1);
    if (newest) return newest.action === undefined ? { key: newest.key } : { action: newest.action };
    if ("" in this.keys) return { key: this.keys[""] };
    return this.numActions ? { action: 0 } : {};
  }

  /** When the press that no frame has shown yet was made, once; null if there is none. */
  takeChange() {
    const changed = this.changedAt;
    this.changedAt = null;
    return changed;
  }

  press(source, what) {
    this.held = this.held.filter((one) => one.source !== source);
    this.held.push({ source, ...what });
    this.changedAt = performance.now();
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

  /** Let an element hold something while it is pressed, by mouse, finger, or space and enter. */
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

  down(event, shortcuts) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const target = event.target instanceof Element ? event.target : document.body;
    if (event.key === "Escape" || (event.key === "Enter" && target.matches("input[type=number]"))) document.activeElement?.blur();
    if (target.matches(TYPING) && !target.matches("input[type=checkbox]")) return;
    if ((event.key === " " || event.key === "Enter") && target.matches(CLICKING)) return;
    if (event.key.startsWith("Arrow") || event.key === " ") event.preventDefault(); // the page stays where it is
    if (event.repeat) return;
    const letter = event.key.toLowerCase();
    if (event.key !== "" && event.key in this.keys) this.press(`key ${event.code}`, { key: this.keys[event.key] });
    else if (/^[0-9]$/.test(event.key) && Number(event.key) < this.numActions) this.press(`key ${event.code}`, { action: Number(event.key) });
    else if (letter in shortcuts) shortcuts[letter]();
  }
}
