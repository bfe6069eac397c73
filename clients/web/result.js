/** The result of one clip: verdict, pictures with their outlines, curve, beats, files to save. */

import { clipPath } from "./gdkvm.js";
import { ClipPlayer } from "./clipplayer.js";
import { byId, make, table, takeKeys, write } from "./dom.js";
import { OutlineEditor } from "./editor.js";
import { drawCurve, drawFrame, drawNext, secondsAt, tallness } from "./draw.js";
import { counted, efInWords, figure, qualityInWords, sentence, spoken, whyUnused } from "./words.js";

const STEP = 10;
const FILES = [
  ["result", "result.json", "JSON", "all that was measured"],
  ["frames.csv", "frames.csv", "CSV", "one line a frame"],
  ["overlay.mp4", "overlay.mp4", "MP4", "film with outlines and curve"],
  ["masks.npz", "masks.npz", "NPZ", "label maps for numpy"],
  ["seg.dcm", "seg.dcm", "DICOM SEG", "the masks, for a PACS"],
  ["sr.dcm", "sr.dcm", "DICOM SR", "the measurements, for a PACS"],
  ["secondary-capture.dcm", "capture.dcm", "DICOM capture", "the film, for a PACS"],
  ["report.html", "report.html", "Report", "to read and print"],
  ["still.png", "still.png", "PNG", "the picture of end diastole"],
  ["masks.json", "masks.json", "COCO", "the masks as run lengths"],
];

/** Shows one clip at a time in the page's result section. */
export class ResultView {
  #server;
  #offers;
  #onChange;
  #id = null;
  #turn = 0; // rises with every clip shown, so that an answer that comes late is known for one
  #result = null;
  #player = null;
  #shown = null;
  #editor;
  #decode;

  /**
   * @param {import("./gdkvm.js").GdkvmServer} server
   * @param {(method: string, path: string) => boolean} offers what the server can do.
   * @param {() => Promise<void>} onChange told when clips were deleted.
   */
  constructor(server, offers, onChange) {
    this.#server = server;
    this.#offers = offers;
    this.#onChange = onChange;
    this.#decode = drawNext((image, frame) => {
      if (frame.turn !== this.#turn) return image.close(); // of a clip that was left meanwhile
      this.#shown?.image.close();
      this.#shown = { image, ...frame };
      return this.#draw();
    });
    this.#editor = new OutlineEditor((outline) => this.#correct({ lv: [outline] }), () => this.#draw());
    this.#wire();
  }

  /** Show nothing, or only a sentence. */
  clear(text) {
    this.#leave();
    byId("result").hidden = !text;
    this.#verdict({ name: "", error: text });
  }

  /** Say that a clip is still worked on. */
  await(name) {
    this.#leave();
    byId("result").hidden = false;
    this.#verdict({ name, headline: "…", words: "The server is working on it." });
  }

  /** Say why there is no result. */
  refuse(name, { message, code }) {
    this.#leave();
    byId("result").hidden = false;
    this.#verdict({ name, headline: "No result", words: "", error: `${spoken(message)} (${code})` });
  }

  /** Fetch a result and show it. */
  async show(id, name) {
    this.#leave();
    this.#id = id;
    const turn = this.#turn;
    byId("result").hidden = false;
    this.#verdict({ name, headline: "…" }); // nothing of the clip before stands beside this name
    try {
      const result = await this.#server.result(id);
      if (this.#turn !== turn) return;
      this.#fill(name, result);
      await this.#openPlayer(id, result);
    } catch (error) {
      if (this.#turn !== turn) return;
      if (this.#result) write("result-error", spoken(error.message));
      else this.#verdict({ name, headline: "No result", error: spoken(error.message) });
    }
  }

  #leave() {
    this.#turn += 1;
    this.#editor.close();
    write("edit-words", ""); // said of the clip before
    this.#player?.close();
    this.#player = this.#id = this.#result = null;
    this.#shown?.image.close();
    this.#shown = null;
    byId("image").width += 0; // which clears it
    byId("player").hidden = byId("details").hidden = true;
  }

  #verdict({ name, state = "none", headline = "", interval = "", words = "", clip = "", warnings = "", error = "" }) {
    byId("verdict").dataset.state = state;
    write("result-name", name);
    write("ef-figure", headline);
    write("ef-interval", interval);
    write("ef-words", words);
    write("clip-words", clip);
    write("warning-words", warnings);
    write("result-error", error);
  }

  #fill(name, result) {
    this.#result = result;
    const { clip, ef } = result;
    const verdict = efInWords(ef);
    const headline = `EF ${verdict.headline}`;
    const warnings = sentence(clip.warnings, "Of the file: ");
    this.#verdict({ ...verdict, name, state: ef.state, headline, clip: clipInWords(result), warnings });
    this.#fillBeats(result);
    this.#fillDownloads(name);
  }

  #fillBeats({ beats, frames }) {
    if (!beats.length) return byId("beats").replaceChildren();
    const volume = (seq) => figure(frames[seq]?.lv?.volume_ml, 0);
    const hasVolume = frames.some(({ lv }) => lv && lv.volume_ml !== null);
    const rows = beats.map((beat, index) => [
      `${index + 1}${beat.is_complete ? "" : " (half)"}`,
      figure(beat.ef_percent, 0, "%"),
      this.#jump(beat.ed_seq, "end diastole", index),
      this.#jump(beat.es_seq, "end systole", index),
      ...(hasVolume ? [`${volume(beat.ed_seq)} / ${volume(beat.es_seq)}`] : []),
    ]);
    const titles = ["Beat", "EF", "ED frame", "ES frame", ...(hasVolume ? ["ED / ES, ml"] : [])];
    const notes = beats.map((beat) => whyUnused(beat, beats));
    return byId("beats").replaceChildren(table("Beats", titles, rows, notes));
  }

  #jump(seq, what, index) {
    const button = make("button", { type: "button", className: "link", textContent: String(seq + 1) });
    button.setAttribute("aria-label", `Show ${what} of beat ${index + 1}, frame ${seq + 1}`);
    button.addEventListener("click", () => {
      if (this.#player) this.#step(seq - this.#player.index);
    });
    return button;
  }

  #fillDownloads(name) {
    const stem = name.replace(/\.[A-Za-z0-9]{1,5}$/, "");
    const items = FILES.filter(([path]) => this.#offers("get", `/v1/clips/{}/${path}`)).map(([path, ending, title, words]) => {
      const button = make("button", { type: "button", className: "link", textContent: title });
      button.addEventListener("click", () => this.#saveFile(button, path, `${stem}-${ending}`));
      return make("li", {}, button, make("span", { className: "words", textContent: ` ${words}` }));
    });
    byId("downloads").replaceChildren(...items);
  }

  /** Fetch first, since a link could carry no key and would show a refusal as a broken file. */
  async #saveFile(button, path, fileName) {
    button.disabled = true;
    write("notice", "");
    try {
      const href = URL.createObjectURL(await this.#server.file(clipPath(this.#id, path)));
      make("a", { href, download: fileName }).click();
      setTimeout(() => URL.revokeObjectURL(href), 60_000);
    } catch (error) {
      this.#notice(error.message);
    }
    button.disabled = false;
  }

  #notice(text) {
    byId("notice").hidden = !text;
    write("notice", text);
  }

  async #openPlayer(id, result) {
    const turn = this.#turn;
    const outlines = await this.#server.ask(clipPath(id, "outlines.json"));
    if (this.#turn !== turn) return;
    this.#player?.close();
    this.#notice("");
    byId("player").hidden = byId("details").hidden = false;
    byId("scrub").max = result.frames.length - 1;
    byId("edit-controls").hidden = !this.#offers("patch", "/v1/clips/{}/frames/{}");
    this.#player = new ClipPlayer(this.#server, id, result, outlines);
    this.#player.addEventListener("frame", ({ detail }) => this.#showFrame(detail));
    this.#player.addEventListener("playing", ({ detail }) => write("play", detail ? "Stop" : "Play"));
    this.#player.addEventListener("trouble", ({ detail }) => this.#notice(detail));
    const isStill = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.#player.seek(result.beats[0]?.ed_seq ?? 0);
    if (!isStill) this.#player.play();
  }

  #showFrame({ index, picture, contours }) {
    this.#decode(picture, { index, contours, turn: this.#turn });
    const { frames, beats } = this.#result;
    const { lv, quality, time_ms: timeMs } = frames[index];
    byId("scrub").value = index;
    const time = timeMs === null ? "" : `, ${(timeMs / 1000).toFixed(2)} s`;
    write("place", `${index + 1} of ${frames.length}${time}`);
    byId("scrub").setAttribute("aria-valuetext", byId("place").textContent);
    const labels = beats.flatMap((beat) => [beat.ed_seq === index ? "ED" : "", beat.es_seq === index ? "ES" : ""]);
    const label = [...new Set(labels.filter(Boolean))].join(" ");
    byId("badge").hidden = !label;
    write("badge", label);
    write("area-figure", lv?.area_cm2 ? figure(lv.area_cm2, 1, "cm²") : figure(lv?.area_px, 0, "px"));
    write("length-figure", figure(lv?.length_cm, 1, "cm"));
    write("volume-figure", figure(lv?.volume_ml, 0, "ml"));
    byId("quality").dataset.state = quality.state;
    const isDrawn = isDrawnByHand(this.#result, index);
    byId("edit-undo").hidden = !isDrawn || this.#editor.isOpen;
    write("quality-words", `${qualityInWords(quality)}${isDrawn ? " Its outline was drawn by hand." : ""}`);
    this.#drawCurve();
  }

  #draw() {
    if (!this.#shown) return;
    const contours = { ...this.#shown.contours };
    if (this.#editor.isOpen) delete contours.lv; // shown by the editor
    drawFrame(byId("image"), this.#shown.image, contours, byId("opacity").valueAsNumber / 100, this.#tall);
  }

  get #tall() {
    return tallness(this.#result.clip.spacing_mm);
  }

  #drawCurve() {
    const { points, marks, unit } = this.#player.curve;
    write("curve-title", unit === "ml" ? "LV volume (ml)" : "LV area (pixels)");
    drawCurve(byId("curve"), points, marks, { cursor: points[this.#player.index].seconds });
  }

  #edit() {
    this.#player.stop();
    if (!this.#shown) return;
    // What is shown is corrected, though the picture of another frame may be on its way.
    const { image, index, contours } = this.#shown;
    this.#player.seek(index);
    byId("edit-undo").hidden = true;
    this.#editor.open(image, contours.lv?.[0] ?? [], this.#tall);
    this.#draw();
  }

  /** Take the network's own outlines of this frame back. */
  async #undo() {
    const turn = this.#turn;
    byId("edit-undo").disabled = true;
    let words = "Measured anew with the network's outlines.";
    try {
      await this.#correct(null);
    } catch (error) {
      words = spoken(error.message);
    }
    byId("edit-undo").disabled = false;
    if (this.#turn === turn) write("edit-words", words);
  }

  /** Have the frame that is shown measured anew, unless somebody else corrected the clip meanwhile. */
  async #correct(contours) {
    const { index } = this.#player;
    const [id, turn] = [this.#id, this.#turn];
    const name = byId("result-name").textContent;
    const answer = await this.#server.ask(clipPath(id, "frames", String(index)), {
      method: "PATCH", json: { contours, revision: this.#result.revision },
    });
    if (this.#turn !== turn) return;
    this.#fill(name, answer);
    await this.#openPlayer(id, answer);
    this.#player?.stop();
    this.#player?.seek(index);
  }

  async #forget() {
    if (!window.confirm("Delete this clip and all that was made of it from the server?")) return;
    const id = this.#id;
    try {
      await this.#server.forget(id);
      if (this.#id === id) window.location.hash = ""; // another one may be shown by now
      await this.#onChange();
    } catch (error) {
      this.#notice(error.message);
    }
  }

  #step(by) {
    if (!this.#player || this.#editor.isOpen) return;
    this.#player.stop();
    this.#player.seek(this.#player.index + by);
  }

  #seekBeat(field) {
    if (!this.#player || this.#editor.isOpen) return;
    const places = this.#result.beats.map((beat) => beat[field]).sort((a, b) => a - b);
    const place = places.find((seq) => seq > this.#player.index) ?? places[0];
    this.#player.stop();
    if (place !== undefined) this.#player.seek(place);
  }

  #wire() {
    const toggle = () => !this.#editor.isOpen && this.#player?.toggle();
    byId("play").addEventListener("click", toggle);
    byId("back").addEventListener("click", () => this.#step(-1));
    byId("forward").addEventListener("click", () => this.#step(1));
    byId("scrub").addEventListener("input", ({ target }) => this.#step(target.valueAsNumber - this.#player.index));
    byId("opacity").addEventListener("input", () => this.#draw());
    byId("forget").addEventListener("click", () => this.#forget());
    byId("edit").addEventListener("click", () => this.#edit());
    byId("edit-undo").addEventListener("click", () => this.#undo());
    byId("curve").addEventListener("click", (event) => {
      const { points } = this.#player.curve;
      const seconds = secondsAt(byId("curve"), points, event.clientX);
      const away = points.map((point) => Math.abs(point.seconds - seconds));
      this.#step(away.indexOf(Math.min(...away)) - this.#player.index);
    });
    window.addEventListener("resize", () => this.#player && (this.#draw(), this.#drawCurve()));
    takeKeys({
      " ": toggle,
      ArrowLeft: (event) => this.#step(event.shiftKey ? -STEP : -1),
      ArrowRight: (event) => this.#step(event.shiftKey ? STEP : 1),
      Home: () => this.#step(-Infinity),
      End: () => this.#step(Infinity),
      d: () => this.#seekBeat("ed_seq"),
      s: () => this.#seekBeat("es_seq"),
      o: () => {
        byId("opacity").value = byId("opacity").valueAsNumber > 0 ? 0 : 85;
        this.#draw();
      },
      "?": () => byId("help").showModal(),
    });
  }
}

/** Whether a frame's outlines are the last ones that somebody drew, not the network's. */
function isDrawnByHand({ edits }, index) {
  return Boolean(edits.findLast((edit) => edit.frame === index)?.after.contours);
}

function clipInWords({ clip, frames, ef, edits }) {
  const [rows, columns] = clip.size;
  const durationMs = clip.time_base.duration_ms;
  const failed = frames.filter((frame) => frame.quality.state === "fail").length;
  const parts = [
    `${clip.view ?? "View unknown"}, ${counted(clip.frames, "frame")} of ${columns} × ${rows}`,
    durationMs === null ? "frame rate unknown, shown at 30 a second" : `${(durationMs / 1000).toFixed(2)} s`,
    ...(ef.heart_rate_bpm === null ? [] : [`${ef.heart_rate_bpm.toFixed(0)} beats a minute`]),
    clip.spacing_mm === null
      ? "pixel size unknown, so no cm or ml"
      : `${clip.spacing_mm.map((mm) => mm.toFixed(3)).join(" × ")} mm a pixel`,
    failed ? `${counted(failed, "frame")} not measurable` : "every frame measurable",
    ...(edits.length ? [`outlines corrected by hand ${edits.length === 1 ? "once" : `${edits.length} times`}`] : []),
  ];
  return `${parts.join(", ")}.`;
}
