/** Writes what a live view has found: figures, the curve, beats, and what befell the connection. */

import { drawCurve } from "./draw.js";
import { byId, make, table, write } from "./dom.js";
import { counted, efInWords, figure, qualityInWords, whyUnused } from "./words.js";

const CURVE_SECONDS = 5;
const GAP_SECONDS = 0.25;
const SHOWN_BEATS = 4;
const LOG_LINES = 40;
const NOTICE_MS = 6000;

/** Figures of one result. */
export function showFigures(view, result) {
  document.querySelector("main").removeAttribute("data-stale");
  const { headline, interval, words } = efInWords(result.ef);
  byId("ef").dataset.state = result.ef.state;
  write("ef-figure", headline);
  write("ef-interval", interval);
  write("ef-words", words);
  const hasVolume = result.lv !== null && result.lv.volume_ml !== null;
  write("size-name", hasVolume ? "LV volume" : "LV area");
  write("size-figure", hasVolume ? figure(result.lv.volume_ml, 0, "ml") : figure(result.lv?.area_px, 0, "px"));
  write("rate-figure", figure(result.ef.heart_rate_bpm, 0, "bpm"));
  byId("quality").dataset.state = result.quality.state;
  write("quality-words", qualityInWords(result.quality));
  write("latency-figure", figure(view.answerMs, 0, "ms"));
  write("infer-figure", figure(result.stages_ms.infer, 0, "ms"));
  write("fps-figure", figure(view.framesPerSecond, 0));
  showDropped(view);
}

/** A picture that the server has not answered: figures are those of before. */
export function showUnmeasured(view) {
  document.querySelector("main").toggleAttribute("data-stale", true);
  byId("quality").dataset.state = "none";
  write("quality-words", "Not measured now: no answer from the server.");
  showDropped(view);
}

/** How many frames were not measured: replaced by the server, or held back because the link was slow. */
export function showDropped(view) {
  write("dropped-figure", `${view.dropped}, ${view.skipped}`);
}

/** The last seconds of the curve, or those around the frame that is shown. */
export function showCurve(view) {
  const { history } = view;
  if (!history.length) return;
  const shown = history[view.cursor ?? history.length - 1].seconds;
  const newest = history.at(-1).seconds;
  const end = view.isFrozen ? Math.min(newest, Math.max(shown + CURVE_SECONDS / 2, history[0].seconds + CURVE_SECONDS)) : newest;
  const window = history.filter(({ seconds }) => seconds >= end - CURVE_SECONDS && seconds <= end + 1e-6);
  const hasVolume = window.some(({ result }) => result.lv && result.lv.volume_ml !== null);
  const points = window.map(({ seconds, result }) => ({
    seconds,
    value: (hasVolume ? result.lv?.volume_ml : result.lv?.area_px) ?? null,
  }));
  const secondsOf = new Map(window.map(({ seconds, result }) => [result.seq, seconds]));
  const marks = [...view.beats.values()].flatMap((beat) => [
    { seconds: secondsOf.get(beat.ed_seq), label: "ED" },
    { seconds: secondsOf.get(beat.es_seq), label: "ES" },
  ]);
  write("curve-title", hasVolume ? "LV volume (ml)" : "LV area (pixels)");
  const cursor = view.isFrozen ? shown : null;
  const start = Math.max(history[0].seconds, end - CURVE_SECONDS);
  drawCurve(byId("curve"), points, marks, { start, span: CURVE_SECONDS, gap: GAP_SECONDS, cursor, notes: view.resumedAt });
}

/** The latest beats, newest first. */
export function showBeats(view) {
  const beats = [...view.beats.values()];
  const latest = beats.slice(-SHOWN_BEATS).reverse();
  const place = byId("beats");
  if (!latest.length) return place.replaceChildren();
  const hasVolume = latest.some((beat) => beat.ed_volume_ml !== null);
  const rows = latest.map((beat) => [
    `${beat.number + 1}${beat.is_complete ? "" : " (half)"}`,
    figure(beat.ef_percent, 0, "%"),
    ...(hasVolume ? [figure(beat.ed_volume_ml, 0), figure(beat.es_volume_ml, 0)] : []),
  ]);
  const titles = ["Beat", "EF", ...(hasVolume ? ["EDV, ml", "ESV, ml"] : [])];
  const notes = latest.map((beat) => whyUnused(beat, beats));
  return place.replaceChildren(table("Latest beats", titles, rows, notes));
}

/** Write a line into the session's log. */
export function log(text) {
  const time = new Date().toLocaleTimeString([], { hour12: false });
  byId("log").prepend(make("li", {}, make("time", { textContent: time }), ` ${text}`));
  while (byId("log").children.length > LOG_LINES) byId("log").lastChild.remove();
}

const PILL = {
  connecting: () => "connecting",
  live: () => "live",
  waiting: ({ attempt }) => `reconnecting, try ${attempt}`,
  parked: () => "resting",
  failed: () => "stopped",
  closed: () => "closed",
};

let keptSeconds = 0;
let isLinkNoticed = false;
let hideTimer = null;

/** What `ready` says of the session. */
export function showReady({ model, session, resumed, resume_within_s: withinS }) {
  keptSeconds = withinS;
  write("model-figure", `Model ${model.name} ${model.version}.`);
  if (!resumed) log(`Session ${session} has begun.`);
}

/** What befell the connection: as a pill, over the image while it matters, and in the log. */
export function showState(detail) {
  byId("connection").dataset.state = detail.state;
  write("connection", PILL[detail.state](detail));
  if (detail.state === "waiting") showWaiting(detail);
  else if (detail.state === "failed") {
    notice("notice", detail.reason);
    log(detail.reason);
  } else if (detail.state === "parked") log("Nothing was sent for a while: the server keeps the session aside.");
  else if (detail.state === "live") showLive(detail);
}

function showWaiting({ reason, attempt, waitMs }) {
  const why = reason ?? "The link to the server is cut.";
  const kept = keptSeconds ? ` The server keeps the session for ${keptSeconds.toFixed(0)} s.` : "";
  notice("notice", `${why} Trying again in ${(waitMs / 1000).toFixed(1)} s (try ${attempt}).${kept}`);
  isLinkNoticed = true;
  notice("resumed", "");
  if (attempt === 1) log(why);
}

function showLive({ reason, awayMs, resent }) {
  // What is said of a refused file stays, though the link comes up after it.
  if (isLinkNoticed) notice("notice", "");
  if (reason === null) return;
  const away = awayMs === null ? "" : ` after ${(awayMs / 1000).toFixed(1)} s`;
  const again = `${counted(resent, "frame")} sent again, none counted twice`;
  const text = reason === "resumed"
    ? `Session resumed${away}: ${again}.`
    : `The server kept the session no longer; a new one has begun${away}.`;
  log(text);
  notice("resumed", text);
  clearTimeout(hideTimer);
  hideTimer = setTimeout(() => notice("resumed", ""), NOTICE_MS);
}

/** Write over the image, or clear what stands there. */
export function notice(id, text) {
  if (id === "notice") isLinkNoticed = false;
  byId(id).hidden = !text;
  write(id, text ?? "");
}
