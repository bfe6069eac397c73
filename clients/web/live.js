/** One live view: a source that streams through a worker, and what came back of it. */

import { UNKNOWN_FRAME_MS } from "./times.js";

const HISTORY_FRAMES = 450;
const KEPT_BEATS = 12;
const RECENT = 60;

/**
 * Events: "show" `{picture, result, seconds, index}` for every frame to draw (result is null while the server is
 * away), "beat", "state", "ready", "error" and "drain" as of GdkvmStream, "frozen" `{isFrozen}`.
 */
export class LiveView extends EventTarget {
  #source;
  #worker;
  #originUs = null;
  #late = []; // what was under way when the picture was frozen
  #sentSeq = null; // the last frame sent before a cut, until one after it is answered

  /**
   * @param {import("./sources.js").Source} source
   * @param {{key: string|null, view: string|null}} options key: of the server. view: where the source knows none.
   */
  constructor(source, { key, view }) {
    super();
    this.#source = source;
    this.isFrozen = false;
    this.cursor = null;
    this.history = [];
    this.beats = new Map();
    this.answersMs = [];
    this.arrivalsMs = [];
    this.dropped = 0;
    this.skipped = 0;
    this.resumedAt = [];
    this.#worker = new Worker(new URL("./sender.js", import.meta.url), { type: "module" });
    this.#worker.onmessage = ({ data }) => this.#take(data);
    const hello = { ...source.hello, view: view || source.hello.view || null };
    this.#worker.postMessage({ type: "open", key, hello, crop: source.crop });
    source.start(this.#worker);
  }

  /** What the pictures come from. */
  get source() {
    return this.#source;
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  #take(message) {
    if (message.type === "answer") this.#markResumed(message.result);
    if (message.type === "answer") this.#takeAnswer(message);
    else if (message.type === "picture") this.#showPlain(message.picture);
    else {
      if (message.type === "ready") this.#takeReady(message.detail);
      if (message.type === "beat") this.#takeBeat(message.detail);
      if (message.type === "dropped") this.dropped += 1;
      if (message.type === "state" && message.detail.reason === "resumed") this.#sentSeq = message.detail.sentSeq;
      this.#tell(message.type, message.detail);
    }
  }

  #showPlain(picture) {
    if (!this.isFrozen) this.#tell("show", { picture, result: null, seconds: null, index: null });
  }

  #takeReady(ready) {
    if (ready.resumed) return;
    this.history = [];
    this.#late = [];
    this.#sentSeq = null;
    this.beats.clear();
    this.resumedAt = [];
  }

  /** Note on the curve where it goes on: at the first frame that was not sent before the cut. */
  #markResumed(result) {
    if (this.#sentSeq === null || result.seq <= this.#sentSeq) return;
    this.resumedAt.push(this.#secondsOf(result));
    this.#sentSeq = null;
  }

  #secondsOf(result) {
    const timeUs = result.time_us ?? 1000 * UNKNOWN_FRAME_MS * result.seq;
    this.#originUs ??= timeUs;
    return (timeUs - this.#originUs) / 1e6;
  }

  #takeAnswer({ result, picture, answerMs, skipped }) {
    this.skipped = skipped;
    this.answersMs = [...this.answersMs.slice(1 - RECENT), answerMs];
    this.arrivalsMs = [...this.arrivalsMs.slice(1 - RECENT), performance.now()];
    const frame = { picture, result, seconds: this.#secondsOf(result) };
    if (this.isFrozen) {
      this.#late.push(frame); // the frozen picture stays the last one
      return;
    }
    this.#keep([frame]);
    this.#tell("show", { ...frame, index: this.history.length - 1 });
  }

  #keep(frames) {
    this.history.push(...frames);
    this.history.splice(0, this.history.length - HISTORY_FRAMES);
  }

  #takeBeat(beat) {
    this.beats.set(beat.number, beat);
    this.beats.delete(beat.number - KEPT_BEATS);
  }

  /** Middle of the latest answers' times, null where there is none. */
  get answerMs() {
    const sorted = [...this.answersMs].sort((a, b) => a - b);
    return sorted[Math.floor(sorted.length / 2)] ?? null;
  }

  /** Answers a second of late, null where there are too few. */
  get framesPerSecond() {
    const times = this.arrivalsMs;
    return times.length < 2 ? null : (1000 * (times.length - 1)) / (times.at(-1) - times[0]);
  }

  /** Stop the picture, or go on. */
  freeze(isFrozen = !this.isFrozen) {
    this.isFrozen = isFrozen;
    if (!isFrozen) this.#keep(this.#late.splice(0));
    this.cursor = isFrozen ? this.history.length - 1 : null;
    this.arrivalsMs = [];
    this.#worker.postMessage({ type: "run", isRunning: !isFrozen });
    this.#source.run(!isFrozen);
    this.#tell("frozen", { isFrozen });
  }

  /** While frozen, show one frame of what was seen. */
  seek(index) {
    if (!this.isFrozen || !this.history.length) return;
    this.cursor = Math.min(this.history.length - 1, Math.max(0, index));
    this.#tell("show", { ...this.history[this.cursor], index: this.cursor });
  }

  /** While frozen, show the ED or ES before the frame shown, or the last one of all. */
  seekBeat(field) {
    const marked = new Set([...this.beats.values()].map((beat) => beat[field]));
    const places = this.history.flatMap(({ result }, index) => (marked.has(result.seq) ? [index] : []));
    const earlier = places.filter((index) => index < this.cursor);
    const place = earlier.at(-1) ?? places.at(-1);
    if (place !== undefined) this.seek(place);
  }

  /** Connect now instead of later. */
  retry() {
    this.#worker.postMessage({ type: "retry" });
  }

  /** Leave the server; the source is stopped too, unless it is used again. */
  close({ keepSource = false } = {}) {
    if (keepSource) this.#source.pause?.();
    else this.#source.stop();
    this.#worker.onmessage = null;
    this.#worker.postMessage({ type: "close" });
  }
}
