// Save what was played since the start of the dream: a film, and the actions that replay it bit for bit.

/** Let the browser download bytes under a name. */
function download(bytes, name, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([bytes], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

export function wireFilm(game) {
  const [length, format, save, replay] = ["film-length", "format", "save", "replay"].map((id) => document.getElementById(id));

  async function saveFilm() {
    save.disabled = true;
    game.notice("writing the film …");
    for (const one of [format.value, "json"]) {
      const packet = await game.ask({ do: "film", format: one });
      if (packet) download(packet.bytes, packet.head.name, packet.head.type);
      else break;
      if (one === "json") game.notice(`${packet.head.name} and the film are saved.`);
    }
    save.disabled = false;
  }

  function show({ detail }) {
    const seconds = detail.head.film_frames / game.world.frames_per_second;
    length.textContent = `${seconds.toFixed(0)} s${detail.head.film_full ? ", full" : ""}`;
  }

  save.addEventListener("click", saveFilm);
  game.addEventListener("begin", show);
  game.addEventListener("frame", show);
  for (const name of ["world", "state"]) {
    game.addEventListener(name, () => {
      const world = game.world.name;
      const file = `${world.split("/").at(-1)}-${game.start.seed}`;
      replay.textContent = `python 4.inference/generate.py --world ${world} \\\n    --actions-file ${file}.json --output ${file}.gif`;
    });
  }
}
