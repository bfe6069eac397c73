/**
 * A client of the GDKVM Live wire protocol (`gdkvm.v1`) in one file, without dependencies.
 *
 *     import { GdkvmStream, uploadClip } from "./gdkvm.js";
 *
 *     const stream = new GdkvmStream("ws://127.0.0.1:8000/v1/stream", {
 *       size: [240, 320], codec: "jpeg", mask_encoding: "contour",
 *     });
 *     stream.addEventListener("result", (event) => draw(event.detail));
 *     stream.send(jpegBytes, { seq: 0, timeUs: 0 });
 *     const summary = await stream.finish();
 *
 * The stream reconnects by itself and resumes its session: what the server had not answered is
 * sent again, and what it had answered is not counted twice. See docs/protocol.md for the messages.
 */

export const SUBPROTOCOL = "gdkvm.v1";
export const HEADER_BYTES = 32;
export const CODECS = ["gray8", "rgb24", "jpeg", "png", "h264", "hevc", "mjpeg"];

const MAGIC = [0x47, 0x44, 0x4b, 0x46]; // "GDKF"
const VERSION = 1;
const UNKNOWN_TIME_US = -(2n ** 63n);
const IDLE_CLOSE_CODE = 4002;
const FIRST_WAIT_MS = 250;
const LONGEST_WAIT_MS = 5000;
const CLOGGED_BYTES = 1 << 20;

/** What went wrong, with the server's stable code and its sentence. */
export class GdkvmError extends Error {
  /**
   * @param {string} code stable, such as "not_a_clip" or "full".
   * @param {string} message a sentence that a person can act on.
   * @param {boolean} retryable whether the same may work later.
   */
  constructor(code, message, retryable = false) {
    super(message);
    this.name = "GdkvmError";
    this.code = code;
    this.retryable = retryable;
  }
}

/**
 * One binary message: the header of 32 bytes, little-endian, and the payload.
 *
 * @param {BufferSource} payload the encoded frame.
 * @param {{codec: string, seq: number|bigint, timeUs?: number|bigint|null}} header seq rises within
 *   a session; timeUs is the acquisition time in microseconds, null where it is unknown.
 * @returns {ArrayBuffer}
 */
export function encodeFrame(payload, { codec, seq, timeUs = null }) {
  const codecByte = CODECS.indexOf(codec);
  if (codecByte < 0) {
    throw new GdkvmError("unsupported_codec", `A codec is one of ${CODECS.join(", ")}.`);
  }
  const bytes = ArrayBuffer.isView(payload)
    ? new Uint8Array(payload.buffer, payload.byteOffset, payload.byteLength)
    : new Uint8Array(payload);
  const message = new Uint8Array(HEADER_BYTES + bytes.length);
  const view = new DataView(message.buffer);
  message.set(MAGIC, 0);
  view.setUint8(4, VERSION);
  view.setUint8(5, codecByte);
  view.setUint16(6, 0, true); // flags
  view.setBigUint64(8, BigInt(seq), true);
  view.setBigInt64(16, timeUs === null ? UNKNOWN_TIME_US : toBigInt(timeUs), true);
  view.setUint32(24, bytes.length, true);
  view.setUint32(28, 0, true); // reserved
  message.set(bytes, HEADER_BYTES);
  return message.buffer;
}

function toBigInt(value) {
  return typeof value === "bigint" ? value : BigInt(Math.round(value));
}

/**
 * Unpack one structure of a mask in the encoding "rle".
 *
 * @param {number[]} counts lengths of runs in row-major order, background first.
 * @param {[number, number]} size rows and columns.
 * @returns {Uint8Array} one byte a pixel, 1 inside.
 */
export function decodeRuns(counts, [rows, columns]) {
  const pixels = new Uint8Array(rows * columns);
  let start = 0;
  counts.forEach((count, index) => {
    if (index % 2 === 1) pixels.fill(1, start, start + count);
    start += count;
  });
  return pixels;
}

/**
 * One live session.
 *
 * Events: "ready", "result", "dropped", "beat", "summary", "drain" and "error" carry the server's
 * message in `detail`; "state" carries `{state, attempt, reason}`, with state one of
 * "connecting", "live", "waiting" (will reconnect), "parked" (idle; the next frame reconnects),
 * "failed" (will not reconnect) and "closed".
 */
export class GdkvmStream extends EventTarget {
  #url;
  #hello;
  #socket = null;
  #token = null;
  #attempt = 0;
  #timer = null;
  #credits = 1;
  #unanswered = new Map();
  #lastError = null;
  #finishing = null;

  /**
   * @param {string} url such as "ws://127.0.0.1:8000/v1/stream".
   * @param {object} hello the fields of `hello`; `size` ([rows, columns]) is required.
   */
  constructor(url, hello) {
    super();
    this.#url = url;
    this.#hello = { policy: "latest", codec: "jpeg", mask_encoding: "contour", ...hello };
    this.state = "connecting";
    this.#connect();
  }

  /** Whether a frame sent now would go out: live, a credit left, and the link not clogged. */
  get canSend() {
    if (this.state !== "live" || this.#socket.bufferedAmount > CLOGGED_BYTES) return false;
    return this.#hello.policy !== "every" || this.#unanswered.size < this.#credits;
  }

  /** How many frames wait for their answer. */
  get unanswered() {
    return this.#unanswered.size;
  }

  /**
   * Send one frame; its answer is a "result" or "dropped" event with the same seq.
   *
   * @param {BufferSource} payload the frame in the codec of `hello`.
   * @param {{seq: number, timeUs?: number|null}} header
   * @returns {boolean} false where it was not sent: not live, or no credit left.
   */
  send(payload, { seq, timeUs = null }) {
    if (this.state === "parked") this.#connect();
    if (!this.canSend) return false;
    const message = encodeFrame(payload, { codec: this.#hello.codec, seq, timeUs });
    this.#unanswered.set(seq, message);
    this.#socket.send(message);
    return true;
  }

  /** Ask for the summary, once every frame sent has been answered, and close. */
  finish() {
    return new Promise((resolve, reject) => {
      this.#finishing = { resolve, reject };
      if (this.state === "live") this.#say({ type: "bye" });
      else if (this.state !== "connecting" && this.state !== "waiting") {
        reject(new GdkvmError("closed", "The session is not open."));
      }
    });
  }

  /** Leave at once, without a summary. */
  close() {
    this.#enter("closed");
    clearTimeout(this.#timer);
    this.#socket?.close(1000);
  }

  #say(message) {
    this.#socket.send(JSON.stringify(message));
  }

  #enter(state, reason = null) {
    this.state = state;
    const detail = { state, attempt: this.#attempt, reason };
    this.dispatchEvent(new CustomEvent("state", { detail }));
  }

  #connect() {
    this.#enter("connecting");
    this.#lastError = null;
    const socket = new WebSocket(this.#url, SUBPROTOCOL);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => this.#say({ type: "hello", ...this.#hello, resume: this.#token });
    socket.onmessage = (event) => this.#take(JSON.parse(event.data));
    socket.onclose = (event) => this.#takeClose(event);
    this.#socket = socket;
  }

  #take(message) {
    if (message.type === "ready") this.#takeReady(message);
    if (message.type === "result" || message.type === "dropped") {
      this.#unanswered.delete(message.seq);
    }
    if (message.type === "drain") this.#token = message.resume;
    if (message.type === "error") this.#lastError = message;
    if (message.type === "summary") {
      this.#finishing?.resolve(message);
      this.close();
    }
    this.dispatchEvent(new CustomEvent(message.type, { detail: message }));
  }

  #takeReady(ready) {
    this.#token = ready.resume;
    this.#credits = ready.credits;
    this.#attempt = 0;
    if (!ready.resumed) this.#unanswered.clear();
    this.#enter("live", ready.resumed ? "resumed" : null);
    for (const frame of this.#unanswered.values()) this.#socket.send(frame);
    if (this.#finishing) this.#say({ type: "bye" });
  }

  #takeClose(event) {
    if (this.state === "closed" || event.target !== this.#socket) return;
    const error = this.#lastError;
    if (event.code === IDLE_CLOSE_CODE) return this.#enter("parked");
    if (error?.code === "cannot_resume" && this.#token !== null) {
      this.#token = null; // kept too long: go on with a new session
      return this.#connect();
    }
    if (error && !error.retryable) {
      this.#enter("failed", error.message);
      this.#finishing?.reject(new GdkvmError(error.code, error.message));
      return undefined;
    }
    const wait = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** this.#attempt);
    this.#attempt += 1;
    this.#enter("waiting", error?.message ?? null);
    this.#timer = setTimeout(() => this.#connect(), wait * (0.75 + 0.5 * Math.random()));
    return undefined;
  }
}

/**
 * The websocket address of the server that a page came from.
 *
 * @param {Location|URL} location
 */
export function streamUrl(location) {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  return `${scheme}//${location.host}/v1/stream`;
}

/**
 * Upload one clip and wait for its answer.
 *
 * @param {Blob} file DICOM, zip of DICOM, MP4, MOV, AVI or GIF.
 * @param {{base?: string, view?: string, waitS?: number}} options base: the server's address,
 *   empty for the page's own.
 * @returns {Promise<object>} the result document, or the state of a job that is still running; either has the
 *   clip's `id`.
 * @throws {GdkvmError} with the server's code and sentence.
 */
export async function uploadClip(file, { base = "", view = null, waitS = 30 } = {}) {
  const query = new URLSearchParams({ wait_s: String(waitS) });
  if (view) query.set("view", view);
  const headers = { "Content-Type": "application/octet-stream" };
  const url = `${base}/v1/clips?${query}`;
  const { body, location } = await exchange(url, { method: "POST", headers, body: file });
  return { id: location?.split("/").pop() ?? null, ...body };
}

/**
 * Fetch JSON; a problem document (RFC 9457) becomes a GdkvmError.
 *
 * @param {string} url
 * @param {RequestInit} options
 */
export async function askServer(url, options = {}) {
  return (await exchange(url, options)).body;
}

async function exchange(url, options) {
  let answer;
  try {
    answer = await fetch(url, options);
  } catch {
    throw new GdkvmError("unreachable", "The server does not answer.", true);
  }
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) {
    const sentence = body.detail ?? body.title ?? `The server answered ${answer.status}.`;
    throw new GdkvmError(body.code ?? "http_error", sentence, answer.status >= 500);
  }
  return { body, location: answer.headers.get("Location") };
}
