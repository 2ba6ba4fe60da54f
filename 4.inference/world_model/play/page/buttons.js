// The buttons of the bar, each with its key. A new button is a row here; what it asks of the server is a row of MESSAGES in player.py.

const BUTTONS = [
  { id: "pause", key: "P", label: (game) => (game.paused ? "Resume" : "Pause"), press: (game) => game.pause(), pressed: (game) => game.paused },
  { id: "single", key: ".", label: () => "One step", press: (game) => game.singleStep() },
  { id: "restart", key: "R", label: () => "Restart", press: (game) => game.begin() },
  { id: "next", key: "N", label: () => "Next start", press: (game) => game.nextStart() },
  { id: "resync", key: "S", label: () => "Resync", press: (game) => game.resync(), disabled: (game) => !game.mirrored },
];

export function showButtons(game) {
  document.getElementById("bar").prepend(...BUTTONS.map(({ id, key, label, press, pressed, disabled }) => {
    const button = document.createElement("button");
    button.id = id;
    button.setAttribute("aria-keyshortcuts", key); // input.js clicks it when the key is pressed
    button.addEventListener("click", () => press(game));
    const update = () => {
      button.textContent = label(game);
      if (pressed) button.setAttribute("aria-pressed", pressed(game));
      if (disabled) button.disabled = disabled(game);
    };
    game.addEventListener("state", update);
    update();
    return button;
  }));
}
