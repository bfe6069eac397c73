/** Uploads one clip of the user's and shows the server's answer. */

import { askServer, GdkvmError, uploadClip } from "./gdkvm.js";
import { drawCurve } from "./draw.js";
import { efInWords, figure, sentence } from "./words.js";

const POLL_MS = 700;

/**
 * @param {File} file
 * @param {string} view "A4C", "A2C" or empty.
 * @param {HTMLElement} place where the answer is shown.
 */
export async function showUpload(file, view, place) {
  place.hidden = false;
  place.replaceChildren(element("p", "words", `Reading ${file.name} …`));
  try {
    const { result, id } = await analysed(file, view);
    place.replaceChildren(...answerNodes(result, id));
    const canvas = place.querySelector("canvas");
    if (canvas) drawClipCurve(canvas, result);
  } catch (error) {
    place.replaceChildren(element("p", "error", error.message), element("p", "words", error.code ?? ""));
  }
}

/** The result of a clip, waiting on where the upload's own wait was too short. */
async function analysed(file, view) {
  const { id, ...answer } = await uploadClip(file, { view });
  if (answer.ef !== undefined) return { result: answer, id };
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    const { state, error } = await askServer(`/v1/clips/${id}`);
    if (state === "failed") throw new GdkvmError(error.code, error.message);
    if (state === "done") return { result: await askServer(`/v1/clips/${id}/result`), id };
  }
}

function answerNodes(result, id) {
  const { clip, ef, frames } = result;
  const { headline, words } = efInWords(ef);
  const nodes = [
    element("p", "headline", `Ejection fraction ${headline}`),
    element("p", "words", words),
    element("p", "words", clipInWords(clip, frames)),
  ];
  if (frames.some((frame) => frame.lv)) nodes.push(element("canvas", "clip-curve"));
  if (result.beats.length) nodes.push(beatTable(result.beats));
  const warnings = sentence(clip.warnings, "Of the file: ");
  if (warnings) nodes.push(element("p", "words", warnings));
  if (id !== null) nodes.push(overlay(id));
  return nodes;
}

function clipInWords(clip, frames) {
  const [rows, columns] = clip.size;
  const duration = clip.time_base.duration_ms;
  const parts = [
    `${clip.frames} frames of ${columns} × ${rows}`,
    duration === null ? "frame rate unknown" : `${(duration / 1000).toFixed(2)} s`,
    clip.spacing_mm === null
      ? "pixel size unknown, so no cm or ml"
      : `${clip.spacing_mm.map((mm) => mm.toFixed(3)).join(" × ")} mm a pixel`,
    `${frames.filter((frame) => frame.quality.state === "fail").length} frames not measurable`,
  ];
  return `${parts.join(", ")}.`;
}

function beatTable(beats) {
  const table = document.createElement("table");
  const head = table.createTHead().insertRow();
  for (const title of ["Beat", "ED frame", "ES frame", "EF"]) head.append(element("th", "", title));
  beats.forEach((beat, index) => {
    const row = table.createTBody().insertRow();
    const name = `${index + 1}${beat.is_complete ? "" : " (half)"}`;
    const cells = [name, beat.ed_seq, beat.es_seq, figure(beat.ef_percent, 0, "%")];
    for (const cell of cells) row.insertCell().textContent = cell;
  });
  return table;
}

function drawClipCurve(canvas, { frames, beats }) {
  const isTimed = frames.every((frame) => frame.time_ms !== null);
  const secondsOf = (frame, index) => (isTimed ? frame.time_ms / 1000 : index / 30);
  const points = frames.map((frame, index) => ({
    seconds: secondsOf(frame, index),
    value: frame.lv?.volume_ml ?? frame.lv?.area_px ?? null,
  }));
  const at = new Map(frames.map((frame, index) => [frame.seq, points[index].seconds]));
  const marks = beats.flatMap((beat) => [
    { seconds: at.get(beat.ed_seq), label: "ED" },
    { seconds: at.get(beat.es_seq), label: "ES" },
  ]);
  drawCurve(canvas, points, marks, 0);
}

/** The clip with its outlines, where the server could make one. */
function overlay(id) {
  const video = element("video", "overlay");
  Object.assign(video, { controls: true, loop: true, muted: true, playsInline: true });
  video.src = `/v1/clips/${encodeURIComponent(id)}/overlay.mp4`;
  video.addEventListener("error", () => video.remove());
  return video;
}

function element(tag, className, text = "") {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.textContent = text;
  return node;
}
