// One WebSocket: questions go out, packets come back in the order in which they were asked (world_model/play/protocol.py).

const decoder = new TextDecoder();

/** A packet's JSON part and its bytes. */
function unpack(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const head = JSON.parse(decoder.decode(new Uint8Array(buffer, 4, length)));
  return { head, bytes: new Uint8Array(buffer, 4 + length), arrived: performance.now() };
}

export class Connection {
  /** onWelcome: called with the first packet. onEnd: called when the server is gone. */
  constructor(onWelcome, onEnd) {
    this.waiting = []; // who gets the next packet
    this.socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/play`);
    this.socket.binaryType = "arraybuffer";
    this.waiting.push({ resolve: (packet) => onWelcome(packet.head), reject: onEnd });
    this.socket.onmessage = (event) => this.receive(unpack(event.data));
    this.socket.onclose = () => {
      onEnd();
      for (const one of this.waiting.splice(0)) one.reject(new Error("the server is gone"));
    };
  }

  receive(packet) {
    const asker = this.waiting.shift();
    if (packet.head.kind === "error") asker.reject(new Error(packet.head.text));
    else asker.resolve(packet);
  }

  /** Ask {do: "step", ...} or send a picture file's bytes. Returns a promise of the packet, refused with the server's sentence. */
  ask(question) {
    if (this.socket.readyState !== WebSocket.OPEN) return Promise.reject(new Error("the server is gone; start it again and reload"));
    this.socket.send(question instanceof ArrayBuffer ? question : JSON.stringify(question));
    return new Promise((resolve, reject) => this.waiting.push({ resolve, reject }));
  }
}
