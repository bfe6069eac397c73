/**
 * A client of GDKVM Live in one file, without dependencies: live sessions and clips.
 *
 *     import { GdkvmServer } from "./gdkvm.js";
 *
 *     const server = new GdkvmServer({ base: "http://127.0.0.1:8000" });
 *     const stream = server.openStream({ size: [240, 320], codec: "jpeg" });
 *     stream.addEventListener("result", (event) => draw(event.detail));
 *     if (stream.canSend) stream.send(jpegBytes, { seq: 0, timeUs: 0 });
 *     const summary = await stream.finish();
 *
 *     const { id } = await server.upload(file, { view: "A4C" });
 *     for await (const { state, progress } of server.follow(id)) show(state, progress);
 *     const { ef } = await server.result(id);
 *
 * A stream reconnects by itself and resumes its session: what the server had not answered is sent
 * again, and so is what a killed server had answered but not saved; no answer is told twice. Works in
 * pages and in workers. See docs/protocol.md for the messages.
 */

export const SUBPROTOCOL = "gdkvm.v1";
export const HEADER_BYTES = 32;
export const CODECS = ["gray8", "rgb24", "jpeg", "png", "h264", "hevc", "mjpeg"];
const PREDICTED = ["h264", "hevc"]; // the server must decode every packet, also one that it drops

const MAGIC = [0x47, 0x44, 0x4b, 0x46]; // "GDKF"
const VERSION = 1;
const UNKNOWN_TIME_US = -(2n ** 63n);
const IDLE_CLOSE_CODE = 4002;
const FAREWELL_CLOSE_CODE = 1000; // ends the session; any other lets it be resumed
const COMEBACK_CLOSE_CODE = 4000;
const FIRST_WAIT_MS = 250;
const LONGEST_WAIT_MS = 5000;
const CLOGGED_BYTES = 1 << 20;
const WATCH_MS = 500;
const KEPT_BEATS = 64;
const FOLLOW_PAUSE_MS = 1000;

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
 * message in `detail`; "state" carries `{state, attempt, reason, waitMs, awayMs, resent, sentSeq}`, with state one of
 * "connecting", "live", "waiting" (connects again in `waitMs`), "parked" (idle; the next frame connects again),
 * "failed" (will not connect again) and "closed". When it is live again after a cut, `reason` is "resumed" or,
 * where the server kept the session no longer, "restarted"; `awayMs` is how long it was away, `resent` how many
 * frames are sent once more, and `sentSeq` the last one that was sent before.
 */
export class GdkvmStream extends EventTarget {
  #url;
  #hello;
  #options;
  #socket = null;
  #token = null;
  #attempt = 0;
  #timer = null;
  #watch = null;
  #credits = 1;
  #unanswered = new Map(); // by seq: the message, and whether it was answered before
  #queue = []; // seqs of unanswered frames that this socket has not been sent
  #kept = new Map(); // answered frames that a killed server would forget
  #keptBytes = 0;
  #keepsFrames = false;
  #sentSeq = null;
  #toldSeq = -1;
  #toldBeats = new Map();
  #isByeSaid = false;
  #heardMs = 0;
  #leftMs = null;
  #wasLive = false;
  #lastError = null;
  #lost = null; // why the session is over that the next connection begins anew
  #finishing = null;

  /**
   * @param {string} url such as "ws://127.0.0.1:8000/v1/stream".
   * @param {object} hello the fields of `hello`; `size` ([rows, columns]) is required.
   * @param {{ticket?: () => Promise<string>, answerWithinMs?: number, mostUnanswered?: number,
   *   mostKeptBytes?: number}} options
   *   ticket: asked before each connection, for a server with keys. answerWithinMs: silence, with frames
   *   unanswered, after which the link is taken for cut. mostUnanswered: frames under way, so that a
   *   slow link delays a picture but never queues many. mostKeptBytes: of answered frames that are kept in case
   *   the server is killed before it has saved them; 0 keeps none.
   */
  constructor(
    url,
    hello,
    { ticket = null, answerWithinMs = 5000, mostUnanswered = 12, mostKeptBytes = 32 << 20 } = {},
  ) {
    super();
    this.#url = url;
    this.#hello = { policy: "latest", codec: "jpeg", mask_encoding: "contour", ...hello };
    this.#options = { ticket, answerWithinMs, mostUnanswered, mostKeptBytes };
    this.state = "connecting";
    this.#connect();
  }

  /** Whether a frame sent now would go out: live, room for one more answer, the link not clogged. */
  get canSend() {
    if (this.state !== "live" || this.#socket.bufferedAmount > CLOGGED_BYTES) return false;
    return this.#queue.length === 0 && this.#hasRoom;
  }

  /** Frames answered before go alone where a newer one would replace them. */
  get #hasRoom() {
    const isCredited = this.#hello.policy === "every";
    const isAlone = !isCredited && [...this.#unanswered.values()].some(({ isAgain }) => isAgain);
    const most = isCredited ? this.#credits : this.#options.mostUnanswered;
    return this.#unanswered.size - this.#queue.length < (isAlone ? 1 : most);
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
   * @returns {boolean} false where it was not sent: see `canSend`.
   */
  send(payload, { seq, timeUs = null }) {
    if (this.state === "parked") this.#connect();
    if (!this.canSend) return false;
    const message = encodeFrame(payload, { codec: this.#hello.codec, seq, timeUs });
    if (this.#unanswered.size === 0) this.#heardMs = Date.now();
    this.#unanswered.set(seq, { message, isAgain: false });
    this.#sentSeq = seq;
    this.#socket.send(message);
    return true;
  }

  /**
   * Ask for the summary, once every frame sent has been answered, and close.
   *
   * @returns {Promise<object>} rejects with a GdkvmError where there will be none: the session failed, is lost
   *   ("cannot_resume"; it is not begun anew then), or is closed meanwhile.
   */
  finish() {
    return new Promise((resolve, reject) => {
      this.#finishing = { resolve, reject };
      if (this.#lost) this.#fail(this.#lost);
      else if (this.state === "live") this.#sendQueue();
      else if (this.state === "parked") this.#connect();
      else if (this.state !== "connecting" && this.state !== "waiting") {
        reject(new GdkvmError("closed", "The session is not open."));
      }
    });
  }

  /** Connect now instead of at the end of the wait, for instance because the network is back. */
  retryNow() {
    if (this.state === "waiting") this.#connect();
  }

  /** Leave at once, without a summary. */
  close() {
    this.#leave(FAREWELL_CLOSE_CODE);
    this.#enter("closed");
    this.#finishing?.reject(new GdkvmError("closed", "The session was closed."));
  }

  #fail({ code, message }) {
    this.#leave();
    this.#enter("failed", { reason: message });
    this.#finishing?.reject(new GdkvmError(code, message));
  }

  #say(message) {
    this.#socket.send(JSON.stringify(message));
  }

  #enter(state, facts = {}) {
    this.state = state;
    const unknown = { reason: null, waitMs: null, awayMs: null, resent: 0, sentSeq: null };
    this.#tell("state", { state, attempt: this.#attempt, ...unknown, ...facts });
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  async #connect() {
    this.#leave();
    this.#enter("connecting");
    this.#lastError = null;
    let url = this.#url;
    if (this.#options.ticket) {
      try {
        url += `?ticket=${encodeURIComponent(await this.#options.ticket())}`;
      } catch (error) {
        this.#lastError = error;
        return this.#goOn();
      }
      if (this.state !== "connecting") return undefined;
    }
    const socket = new WebSocket(url, SUBPROTOCOL);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => this.#say({ type: "hello", ...this.#hello, resume: this.#token });
    socket.onmessage = (event) => this.#take(JSON.parse(event.data));
    socket.onclose = (event) => (event.code === IDLE_CLOSE_CODE ? this.#park() : this.#goOn());
    this.#socket = socket;
    return undefined;
  }

  /** Let go of the socket without waiting for its end, which on a dead link may take minutes. */
  #leave(code = COMEBACK_CLOSE_CODE) {
    clearTimeout(this.#timer);
    clearInterval(this.#watch);
    if (!this.#socket) return;
    this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
    this.#socket.close(code);
    this.#socket = null;
  }

  #take(message) {
    this.#heardMs = Date.now();
    const isNews = this.#isNews(message);
    if (message.type === "ready") this.#takeReady(message);
    if (message.type === "result" || message.type === "dropped") this.#settle(message);
    if (message.type === "drain") this.#token = message.resume;
    if (message.type === "error") this.#lastError = message;
    if (message.type === "summary") {
      this.#finishing?.resolve(message);
      this.close();
    }
    if (isNews) this.#tell(message.type, message);
  }

  /** Whether a message was not told before a server forgot it. */
  #isNews(message) {
    if (message.type === "result" || message.type === "dropped") {
      const isNews = message.seq > this.#toldSeq;
      this.#toldSeq = Math.max(this.#toldSeq, message.seq);
      return isNews;
    }
    if (message.type === "beat") {
      const told = this.#toldBeats.get(message.number) ?? -1;
      this.#toldBeats.set(message.number, Math.max(told, message.revision));
      this.#toldBeats.delete(message.number - KEPT_BEATS);
      return message.revision > told;
    }
    return true;
  }

  /** Let go of a frame that was answered, or keep it until a snapshot holds it; then there is room for the next. */
  #settle(answer) {
    const frame = this.#unanswered.get(answer.seq);
    this.#unanswered.delete(answer.seq);
    const isNeeded = answer.type === "result" || PREDICTED.includes(this.#hello.codec);
    if (frame && isNeeded && this.#keepsFrames) {
      this.#kept.set(answer.seq, frame.message);
      this.#keptBytes += frame.message.byteLength;
    }
    const savedSeq = answer.saved_seq ?? -1;
    for (const seq of this.#kept.keys()) {
      if (seq > savedSeq && this.#keptBytes <= this.#options.mostKeptBytes) break;
      this.#unkeep(seq);
    }
    this.#sendQueue();
  }

  #unkeep(seq) {
    const message = this.#kept.get(seq);
    this.#kept.delete(seq);
    this.#keptBytes -= message.byteLength;
    return message;
  }

  #takeReady(ready) {
    const comeback = ready.resumed ? "resumed" : "restarted";
    const reason = this.#wasLive ? comeback : null;
    const awayMs = this.#leftMs === null ? null : Date.now() - this.#leftMs;
    this.#wasLive = true;
    this.#lost = null;
    this.#token = ready.resume;
    this.#credits = ready.credits;
    this.#keepsFrames = ready.resume_within_s > 0;
    this.#attempt = 0;
    this.#leftMs = null;
    this.#isByeSaid = false;
    if (ready.resumed) this.#takeBack(ready.last_seq ?? -1);
    else this.#beginAnew();
    this.#queue = [...this.#unanswered.keys()];
    this.#watch = setInterval(() => this.#checkSilence(), WATCH_MS);
    this.#enter("live", { reason, awayMs, resent: this.#queue.length, sentSeq: this.#sentSeq });
    this.#sendQueue();
  }

  /** What was answered after the last frame that the server remembers is to be answered again, before the rest. */
  #takeBack(lastSeq) {
    const forgotten = [...this.#kept.keys()].filter((seq) => seq > lastSeq);
    const again = forgotten.map((seq) => [seq, { message: this.#unkeep(seq), isAgain: true }]);
    this.#unanswered = new Map([...again, ...this.#unanswered]);
  }

  #beginAnew() {
    this.#unanswered.clear();
    this.#kept.clear();
    this.#keptBytes = 0;
    this.#toldSeq = -1;
    this.#toldBeats.clear();
  }

  /** Send again what waits for it, no more at a time than the server takes without dropping any; then say bye. */
  #sendQueue() {
    while (this.#queue.length > 0 && this.#hasRoom) {
      this.#socket.send(this.#unanswered.get(this.#queue.shift()).message);
    }
    if (this.#queue.length === 0 && this.#finishing && !this.#isByeSaid) {
      this.#isByeSaid = true;
      this.#say({ type: "bye" });
    }
  }

  #checkSilence() {
    const isWaiting = this.#unanswered.size > 0 || this.#finishing !== null;
    if (!isWaiting || Date.now() - this.#heardMs <= this.#options.answerWithinMs) return;
    this.#leftMs ??= this.#heardMs;
    this.#goOn();
  }

  #park() {
    this.#leave();
    this.#enter("parked");
  }

  /** Go on after the end of a connection: connect again, or give up. */
  #goOn() {
    const error = this.#lastError;
    this.#leave();
    this.#leftMs ??= Date.now();
    if (error?.code === "cannot_resume" && this.#token !== null) {
      this.#token = null; // kept too long: go on with a new session
      this.#lost = error;
      if (!this.#finishing) return this.#connect();
    }
    if (error && !error.retryable) return this.#fail(error);
    const longest = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** this.#attempt);
    const waitMs = longest * (0.75 + 0.25 * Math.random());
    this.#attempt += 1;
    this.#timer = setTimeout(() => this.#connect(), waitMs);
    this.#enter("waiting", { reason: error?.message ?? null, waitMs });
    return undefined;
  }
}

/** One server: its clips, and sessions on it. */
export class GdkvmServer {
  #base;
  #key;

  /**
   * @param {{base?: string, key?: string|null}} options base: such as "https://echo.example", empty for the
   *   page's own server. key: an API key, where the server has keys.
   */
  constructor({ base = "", key = null } = {}) {
    this.#base = base;
    this.#key = key;
  }

  /**
   * Open a live session.
   *
   * @param {object} hello the fields of `hello`; `size` ([rows, columns]) is required.
   * @param {object} options as of GdkvmStream, save the ticket, which is fetched where there is a key.
   */
  openStream(hello, options = {}) {
    const url = new URL("/v1/stream", this.#base || globalThis.location.href);
    url.protocol = url.protocol.replace("http", "ws");
    const ticket = this.#key === null ? null : () => this.ticket();
    return new GdkvmStream(url.href, hello, { ticket, ...options });
  }

  /** A short-lived ticket, which opens one websocket: a browser cannot send a key with those. */
  async ticket() {
    return (await this.ask("/v1/tickets", { method: "POST" })).ticket;
  }

  /**
   * Upload one clip.
   *
   * @param {Blob} file DICOM, zip of DICOM, MP4, MOV, AVI or GIF.
   * @param {{view?: string|null, waitS?: number, onProgress?: (share: number) => void}} options view: "A4C" or
   *   "A2C" where the file does not say. waitS: how long to wait for the result. onProgress: told how much of
   *   the file has been sent, 0 to 1.
   * @returns {Promise<object>} the result, where it was there in time, else the clip's state; either with `id`.
   * @throws {GdkvmError} with the server's code and sentence; "unreadable" where the file cannot be read.
   */
  async upload(file, { view = null, waitS = 0, onProgress = null } = {}) {
    // The browser would tell of a folder, or of a file that is gone, what it tells of a server that is away.
    await file.slice(0, 1).arrayBuffer().catch(() => {
      throw new GdkvmError("unreadable", "This file cannot be read; of a folder, choose the clips in it.");
    });
    const query = new URLSearchParams({ wait_s: String(waitS) });
    if (view) query.set("view", view);
    const headers = { "Content-Type": "application/octet-stream" };
    const path = `/v1/clips?${query}`;
    const options = { method: "POST", headers, body: file };
    const answer = onProgress ? await this.#send(path, file, headers, onProgress) : await this.#fetch(path, options);
    const body = await bodyOf(answer);
    return { id: answer.headers.get("Location")?.split("/").pop() || null, ...body };
  }

  /** States of all clips kept, oldest first. */
  clips() {
    return this.ask("/v1/clips");
  }

  /** State of one clip. */
  clip(id) {
    return this.ask(clipPath(id));
  }

  /** The result of a clip that is done. */
  result(id) {
    return this.ask(clipPath(id, "result"));
  }

  /** Forget a clip and all that was made of it. */
  forget(id) {
    return this.ask(clipPath(id), { method: "DELETE" });
  }

  /**
   * A clip's states as they change, up to the last ("done" or "failed"), over cut connections too.
   *
   * @param {string} id
   * @param {{signal?: AbortSignal}} options signal: ends it early.
   */
  async *follow(id, { signal = undefined } = {}) {
    for (let isOver = false; !isOver; ) {
      try {
        for await (const state of this.#events(id, signal)) {
          isOver = state.state === "done" || state.state === "failed";
          yield state;
        }
        if (isOver) return;
        // The server ends without a last word where the clip was deleted; this says so.
        await this.clip(id);
      } catch (error) {
        if (signal?.aborted) return;
        if (!error.retryable) throw error;
      }
      await new Promise((resolve) => setTimeout(resolve, FOLLOW_PAUSE_MS));
    }
  }

  async *#events(id, signal) {
    const answer = await this.#fetch(clipPath(id, "events"), { signal });
    if (!answer.ok) await bodyOf(answer);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { done, value } = await reader.read().catch((error) => {
        throw new GdkvmError("unreachable", "The connection to the server broke off.", !signal?.aborted, error);
      });
      if (done) return;
      const events = (text + value).split("\n\n");
      text = events.pop();
      for (const event of events) {
        const line = event.split("\n").find((each) => each.startsWith("data:"));
        if (line) yield JSON.parse(line.slice(5));
      }
    }
  }

  /**
   * Fetch JSON; a problem document (RFC 9457) becomes a GdkvmError.
   *
   * @param {string} path
   * @param {RequestInit & {json?: object}} options json: sent as the body.
   */
  async ask(path, { json, ...options } = {}) {
    if (json !== undefined) {
      options.headers = { "Content-Type": "application/json", ...options.headers };
      options.body = JSON.stringify(json);
    }
    return bodyOf(await this.#fetch(path, options));
  }

  /** Fetch a file, such as `/v1/clips/{id}/overlay.mp4`. */
  async file(path) {
    const answer = await this.#fetch(path, {});
    return answer.ok ? answer.blob() : bodyOf(answer);
  }

  async #fetch(path, options) {
    const headers = { ...this.#authorization, ...options.headers };
    try {
      return await fetch(this.#base + path, { ...options, headers });
    } catch {
      throw new GdkvmError("unreachable", "The server does not answer.", true);
    }
  }

  get #authorization() {
    return this.#key === null ? {} : { Authorization: `Bearer ${this.#key}` };
  }

  /** Send a file with its progress, which `fetch` does not tell. */
  #send(path, file, headers, onProgress) {
    return new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      request.open("POST", this.#base + path);
      for (const [name, value] of Object.entries({ ...this.#authorization, ...headers })) {
        request.setRequestHeader(name, value);
      }
      request.upload.onprogress = (event) => onProgress(event.loaded / event.total);
      request.onload = () => {
        const answered = { Location: request.getResponseHeader("Location") ?? "" };
        resolve(new Response(request.responseText, { status: request.status, headers: answered }));
      };
      request.onerror = () => reject(new GdkvmError("unreachable", "The server does not answer.", true));
      request.send(file);
    });
  }
}

/** The path of a clip, or of something made of it. */
export function clipPath(id, ...rest) {
  return ["/v1/clips", encodeURIComponent(id), ...rest].join("/");
}

async function bodyOf(answer) {
  const body = await answer.json().catch(() => ({}));
  if (answer.ok) return body;
  const sentence = body.detail ?? body.title ?? `The server answered ${answer.status}.`;
  throw new GdkvmError(body.code ?? "http_error", sentence, answer.status >= 500);
}
