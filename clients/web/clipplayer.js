/** Plays the pictures of a clip in their own time, with the outlines that were found in them. */

import { clipPath } from "./gdkvm.js";
import { knownTimesMs, lapOf, UNKNOWN_FRAME_MS } from "./times.js";

const FETCHES_AT_ONCE = 4;

/** Events: "frame" `{index, picture, contours}`, "playing" (whether it does), "trouble" (a sentence, empty once it is over). */
export class ClipPlayer extends EventTarget {
  #server;
  #id;
  #outlines;
  #seconds;
  #lapS;
  #pictures = new Map();
  #isPlaying = false;
  #isOpen = true;
  #isTroubled = false;
  #startMs = 0;

  /**
   * @param {import("./gdkvm.js").GdkvmServer} server
   * @param {string} id of the clip.
   * @param {object} result of the clip.
   * @param {{contours: object}[]} outlines one a frame.
   */
  constructor(server, id, result, outlines) {
    super();
    this.#server = server;
    this.#id = id;
    this.#outlines = outlines;
    this.index = 0;
    const timesMs = knownTimesMs(result.frames) ?? result.frames.map((_, index) => index * UNKNOWN_FRAME_MS);
    this.#seconds = timesMs.map((timeMs) => timeMs / 1000);
    this.#lapS = lapOf(timesMs) / 1000;
    this.curve = this.#curveOf(result);
    this.#fetchAll();
  }

  #curveOf({ frames, beats }) {
    const hasVolume = frames.some(({ lv }) => lv && lv.volume_ml !== null);
    const points = frames.map(({ lv }, index) => ({
      seconds: this.#seconds[index],
      value: (hasVolume ? lv?.volume_ml : lv?.area_px) ?? null,
    }));
    const marks = beats.flatMap((beat) => [
      { seconds: this.#seconds[beat.ed_seq], label: "ED" },
      { seconds: this.#seconds[beat.es_seq], label: "ES" },
    ]);
    return { points, marks, unit: hasVolume ? "ml" : "px" };
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  #picture(index) {
    if (!this.#pictures.has(index)) {
      const picture = this.#server.file(clipPath(this.#id, "frames", `${index}.jpg`));
      picture.catch(() => this.#pictures.delete(index)); // to be asked for again
      this.#pictures.set(index, picture);
    }
    return this.#pictures.get(index);
  }

  async #fetchAll() {
    const indices = this.#outlines.keys();
    const fetchNext = async () => {
      for (const index of indices) {
        if (!this.#isOpen) return;
        await this.#picture(index);
      }
    };
    try {
      await Promise.all(Array.from({ length: FETCHES_AT_ONCE }, fetchNext));
    } catch (error) {
      if (this.#isOpen) this.#tellTrouble(error.message);
    }
  }

  #tellTrouble(text) {
    this.#isTroubled = text !== "";
    this.#tell("trouble", text);
  }

  /** Show one frame, unless another is asked for before its picture is there. */
  async seek(index) {
    const wanted = Math.min(this.#outlines.length - 1, Math.max(0, index));
    this.index = wanted;
    try {
      const picture = await this.#picture(wanted);
      if (!this.#isOpen || this.index !== wanted) return;
      this.#tell("frame", { index: wanted, picture, contours: this.#outlines[wanted].contours });
      if (this.#isTroubled) this.#tellTrouble("");
    } catch (error) {
      if (this.#isOpen) this.#tellTrouble(error.message);
    }
  }

  /** Play in a loop from the frame that is shown. */
  play() {
    if (this.#isPlaying || this.#outlines.length < 2) return;
    this.#isPlaying = true;
    this.#startMs = performance.now() - 1000 * (this.#seconds[this.index] - this.#seconds[0]);
    this.#tell("playing", true);
    requestAnimationFrame(() => this.#tick());
  }

  /** Stop at the frame that is shown. */
  stop() {
    if (!this.#isPlaying) return;
    this.#isPlaying = false;
    this.#tell("playing", false);
  }

  /** Play or stop. */
  toggle() {
    if (this.#isPlaying) this.stop();
    else this.play();
  }

  #tick() {
    if (!this.#isPlaying) return;
    const last = this.#seconds.length - 1;
    const seconds = this.#seconds[0] + (((performance.now() - this.#startMs) / 1000) % this.#lapS);
    const next = this.#seconds.findIndex((each) => each > seconds);
    const index = next < 0 ? last : Math.max(0, next - 1);
    if (index !== this.index) this.seek(index);
    requestAnimationFrame(() => this.#tick());
  }

  /** Forget the clip. */
  close() {
    this.stop();
    this.#isOpen = false;
  }
}
