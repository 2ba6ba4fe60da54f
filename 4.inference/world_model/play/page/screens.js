// The two games as RGB on canvases, and the captions below them. Where only the dream can be played, the page has no second one.

/** Put RGB bytes on a canvas of the same size in pixels. */
export function paint(canvas, bytes, width, height) {
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  const image = new ImageData(width, height);
  for (let source = 0, target = 0; target < image.data.length; source += 3, target += 4) {
    image.data[target] = bytes[source];
    image.data[target + 1] = bytes[source + 1];
    image.data[target + 2] = bytes[source + 2];
    image.data[target + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

export function showScreens(game) {
  const [dream, real, beside, pressed, name] = ["dream", "real", "beside", "pressed", "game-name"].map((id) => document.getElementById(id));

  function paintBoth({ detail }) {
    const [width, height] = [game.world.width * detail.scale, game.world.height * detail.scale];
    paint(dream, detail.shown[0], width, height);
    if (detail.real) paint(real, detail.shown[1], width, height);
  }

  function show({ detail }) {
    const names = game.world.action_names;
    paintBoth({ detail });
    if (beside && beside.hidden !== !detail.real) beside.hidden = !detail.real;
    dream.dataset.frame = detail.head.frame;
    const action = detail.head.action;
    const key = Object.keys(game.world.action_map).find((one) => game.world.action_map[one] === action);
    pressed.textContent = action === undefined ? "the frame it starts from" : `frame ${detail.head.frame}, ${game.readInput().key ?? key ?? names[action] ?? ""}`;
  }

  game.addEventListener("begin", show);
  game.addEventListener("frame", show);
  game.addEventListener("sharpened", paintBoth);
  game.addEventListener("world", () => {
    if (name) name.textContent = game.world.real_game ?? "";
    document.documentElement.style.setProperty("--shape", game.world.width / game.world.height);
  });
}
