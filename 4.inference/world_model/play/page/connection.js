// One WebSocket: messages go out, packets come back in the same order (format: world_model/play/protocol.py).

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
    this.waiting = []; // promises of packets, oldest message first
    this.socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/play`);
    this.socket.binaryType = "arraybuffer";
    this.waiting.push({ resolve: (packet) => onWelcome(packet.head), reject: onEnd });
    this.socket.onmessage = (event) => this.receive(unpack(event.data));
    this.socket.onclose = () => {
      onEnd();
      for (const { reject } of this.waiting.splice(0)) reject(new Error("the server is gone"));
    };
  }

  receive(packet) {
    const { resolve, reject } = this.waiting.shift();
    if (packet.head.kind === "error") reject(new Error(packet.head.text));
    else resolve(packet);
  }

  /** Send {do: "step", ...} or a picture file's bytes. Returns a promise of the packet, rejected with the server's sentence. */
  ask(message) {
    if (this.socket.readyState !== WebSocket.OPEN) return Promise.reject(new Error("the server is gone; start it again and reload"));
    this.socket.send(message instanceof ArrayBuffer ? message : JSON.stringify(message));
    return new Promise((resolve, reject) => this.waiting.push({ resolve, reject }));
  }
}
