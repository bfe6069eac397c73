/** Plays a clip through the server at real time, in a loop, and keeps what came back. */

import { GdkvmStream } from "./gdkvm.js";

const HISTORY_FRAMES = 150;
const CLIP_BREAK_MS = 500;

/**
 * Fetch the sample clip that the server carries.
 *
 * @returns {Promise<object>} `size` [rows, columns], `frameMs`, `spacingMm`, `view`, `region` and `frames`, each
 *   with its JPEG `bytes` and its decoded `image`.
 */
export async function loadSample() {
  const clip = await (await fetch("/sample.json")).json();
  const load = async (index) => {
    const blob = await (await fetch(`/sample/${index}.jpg`)).blob();
    return { bytes: await blob.arrayBuffer(), image: await createImageBitmap(blob) };
  };
  const frames = await Promise.all(Array.from({ length: clip.frames }, (_, index) => load(index)));
  return {
    size: clip.size,
    frameMs: clip.frame_time_ms,
    spacingMm: clip.spacing_mm ?? null,
    view: clip.view ?? null,
    region: clip.region ?? null,
    frames,
  };
}

/**
 * One clip playing through one session.
 *
 * Events: "show" `{image, result, seconds}` for every frame to draw (result is null while the server
 * is away), "beats" when a beat closes, "state" as of GdkvmStream, "ready", "error".
 */
export class LivePlayer extends EventTarget {
  #clip;
  #stream;
  #seq = 0;
  #dueMs = 0;
  #sent = new Map();
  #cursor = null;

  /**
   * @param {object} clip as `loadSample` returns it.
   * @param {string} url the websocket.
   */
  constructor(clip, url) {
    super();
    this.#clip = clip;
    this.isPlaying = true;
    this.history = [];
    this.beats = new Map();
    this.answersMs = [];
    this.answerTimesMs = [];
    this.dropped = 0;
    this.#stream = this.#open(url);
    requestAnimationFrame((now) => this.#tick(now));
  }

  #open(url) {
    const { size, spacingMm, view, region, frameMs } = this.#clip;
    const fps = 1000 / frameMs;
    const stream = new GdkvmStream(url, { size, view, region, fps, spacing_mm: spacingMm });
    stream.addEventListener("result", (event) => this.#takeResult(event.detail));
    stream.addEventListener("dropped", (event) => this.#takeDropped(event.detail));
    stream.addEventListener("beat", (event) => this.#takeBeat(event.detail));
    stream.addEventListener("ready", (event) => this.#takeReady(event.detail));
    for (const type of ["state", "error"]) {
      stream.addEventListener(type, ({ detail }) => this.#tell(type, detail));
    }
    return stream;
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  #tick(now) {
    requestAnimationFrame((later) => this.#tick(later));
    if (!this.isPlaying || now < this.#dueMs) return;
    // After a break (a hidden tab) the clip goes on from here instead of catching up.
    const isLate = now - this.#dueMs > CLIP_BREAK_MS;
    this.#dueMs = (isLate ? now : this.#dueMs) + this.#clip.frameMs;
    this.#sendNext(now);
  }

  #sendNext(now) {
    const seq = this.#seq;
    this.#seq += 1;
    const { bytes, image } = this.#clip.frames[seq % this.#clip.frames.length];
    const timeUs = Math.round(seq * this.#clip.frameMs * 1000);
    if (this.#stream.send(bytes, { seq, timeUs })) this.#sent.set(seq, { image, now });
    else this.#tell("show", { image, result: null });
  }

  #takeReady(ready) {
    if (!ready.resumed) {
      this.history = [];
      this.beats.clear();
      this.#sent.clear();
    }
    this.#tell("ready", ready);
  }

  #takeResult(result) {
    const sent = this.#sent.get(result.seq);
    if (!sent) return;
    this.#sent.delete(result.seq);
    this.dropped = result.dropped;
    const now = performance.now();
    this.answersMs = [...this.answersMs.slice(-59), now - sent.now];
    this.answerTimesMs = [...this.answerTimesMs.slice(-59), now];
    const seconds = (result.seq * this.#clip.frameMs) / 1000;
    const frame = { image: sent.image, result, seconds };
    this.history = [...this.history.slice(1 - HISTORY_FRAMES), frame];
    if (this.isPlaying) this.#tell("show", frame);
  }

  #takeDropped({ seq }) {
    this.#sent.delete(seq);
    this.dropped += 1;
  }

  #takeBeat(beat) {
    this.beats.set(beat.number, beat);
    this.beats.delete(beat.number - 50);
    this.#tell("beats", beat);
  }

  /** Seconds of a frame on the clip's own clock. */
  secondsOf(seq) {
    return (seq * this.#clip.frameMs) / 1000;
  }

  /** Stop or go on; returns whether it plays now. */
  toggle() {
    this.isPlaying = !this.isPlaying;
    this.#cursor = null;
    return this.isPlaying;
  }

  /** While paused, show an earlier (-1) or later (+1) frame of what was played. */
  step(direction) {
    if (this.isPlaying || !this.history.length) return;
    const last = this.history.length - 1;
    this.#cursor = Math.min(last, Math.max(0, (this.#cursor ?? last) + direction));
    this.#tell("show", this.history[this.#cursor]);
  }

  /** Leave the server. */
  close() {
    this.isPlaying = false;
    this.#stream.close();
  }
}
