// The sound of the dream: what belongs to a frame arrives with it, and is played right behind what belongs to the frame before.

const RATE = 30720; // samples a second at the game's own speed
const LEAD = 0.08; // seconds between the arrival of a sound and its beginning, so that the next frame can be a little late
const LONGEST_QUEUE = 0.4; // seconds; a sound that would have to wait longer is left out
const FASTEST = 2; // at a higher speed there is nothing left to be heard

export function playSound(game) {
  const box = document.getElementById("sound");
  let context = null; // there while the sound is on
  let end = 0; // when everything that was scheduled is over, on the clock of `context`

  // In the click itself, which V makes too: a moment later, when the server has answered, some browsers let no page sound.
  box.addEventListener("change", () => { if (box.checked) open(); });

  game.addEventListener("state", () => {
    if (game.sounding) return open();
    context?.close(); // what is scheduled is not heard any more
    context = null;
    end = 0;
  });

  function open() {
    context ??= new AudioContext();
    context.resume();
  }

  game.addEventListener("frame", ({ detail: { sound } }) => {
    if (!context || !sound.length || game.speed > FASTEST) return;
    const begin = end > context.currentTime ? end : context.currentTime + LEAD;
    if (begin - context.currentTime > LONGEST_QUEUE) return;
    const buffer = context.createBuffer(1, sound.length, RATE);
    buffer.getChannelData(0).forEach((_, at, wave) => { wave[at] = (sound[at] - 128) / 128; });
    const source = new AudioBufferSourceNode(context, { buffer, playbackRate: game.speed });
    source.connect(context.destination);
    source.start(begin);
    end = begin + buffer.duration / game.speed;
    game.emit("sounded", { begin, end, samples: sound.length });
  });
}
