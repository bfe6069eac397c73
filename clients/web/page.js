/** Wires the page: the sample clip plays at once, a clip of one's own is uploaded. */

import { drawCurve, drawFrame } from "./draw.js";
import { streamUrl } from "./gdkvm.js";
import { LivePlayer, loadSample } from "./live.js";
import { showUpload } from "./upload.js";
import { efInWords, figure, qualityInWords } from "./words.js";

const CURVE_SECONDS = 4;
const byId = (id) => document.getElementById(id);

let player = null;
let shown = null;
let lastTextMs = 0;

/** Write text only where it changes, so that screen readers are not told the same twice. */
function write(id, text) {
  const node = byId(id);
  if (node.textContent !== text) node.textContent = text;
}

function notice(text) {
  byId("notice").hidden = !text;
  write("notice", text);
}

function draw() {
  if (!shown) return;
  const contours = shown.result?.mask?.contours ?? null;
  drawFrame(byId("image"), shown.image, contours, byId("opacity").valueAsNumber / 100);
}

function show(frame) {
  shown = frame;
  draw();
  if (!frame.result) return;
  showCurve();
  const now = performance.now();
  if (player.isPlaying && now - lastTextMs < 200) return; // figures that can be read
  lastTextMs = now;
  showFigures(frame.result);
}

function showFigures(result) {
  const { headline, words } = efInWords(result.ef);
  byId("ef").dataset.state = result.ef.state;
  write("ef-figure", headline);
  write("ef-words", words);
  const hasVolume = result.lv !== null && result.lv.volume_ml !== null;
  write("size-name", hasVolume ? "LV volume" : "LV area");
  write("size-figure", hasVolume ? figure(result.lv.volume_ml, 0, "ml") : figure(result.lv?.area_px, 0, "px"));
  write("rate-figure", figure(result.ef.heart_rate_bpm, 0, "bpm"));
  byId("quality").dataset.state = result.quality.state;
  write("quality-words", qualityInWords(result.quality));
  const answers = [...player.answersMs].sort((a, b) => a - b);
  const half = answers[Math.floor(answers.length / 2)];
  write("latency-figure", `${figure(half, 0, "ms")} (network ${figure(result.stages_ms.infer, 1, "ms")})`);
  write("dropped-figure", String(player.dropped));
  write("fps-figure", figure(framesPerSecond(), 0));
}

function framesPerSecond() {
  const times = player.answerTimesMs;
  if (times.length < 2) return null;
  return (1000 * (times.length - 1)) / (times.at(-1) - times[0]);
}

function showCurve() {
  const { history } = player;
  const first = history.at(-1).seconds - CURVE_SECONDS;
  const window = history.filter((frame) => frame.seconds >= first);
  const hasVolume = window.some((frame) => frame.result.lv && frame.result.lv.volume_ml !== null);
  const points = window.map(({ seconds, result }) => ({
    seconds,
    value: (hasVolume ? result.lv?.volume_ml : result.lv?.area_px) ?? null,
  }));
  const marks = [...player.beats.values()].flatMap((beat) => [
    { seconds: player.secondsOf(beat.ed_seq), label: "ED" },
    { seconds: player.secondsOf(beat.es_seq), label: "ES" },
  ]);
  write("curve-title", hasVolume ? "LV volume (ml)" : "LV area (pixels)");
  drawCurve(byId("curve"), points, marks, CURVE_SECONDS);
}

const CONNECTION = {
  connecting: () => "connecting",
  live: ({ reason }) => (reason === "resumed" ? "live, resumed" : "live"),
  waiting: ({ attempt }) => `reconnecting, try ${attempt}`,
  parked: () => "resting",
  failed: () => "stopped",
  closed: () => "closed",
};

function showState(detail) {
  byId("connection").dataset.state = detail.state;
  write("connection", CONNECTION[detail.state](detail));
  if (detail.state === "waiting") notice(detail.reason ?? "The server does not answer. Trying again …");
  else if (detail.state === "failed") notice(detail.reason);
  else if (detail.state === "live") notice("");
}

function toggle() {
  if (!player) return;
  const isPlaying = player.toggle();
  write("play", isPlaying ? "Pause" : "Play");
  byId("back").disabled = isPlaying;
  byId("forward").disabled = isPlaying;
}

function takeKey(event) {
  const isTyping = event.target.closest("input, select, button, a, video");
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
  const action = { " ": toggle, ArrowLeft: () => player?.step(-1), ArrowRight: () => player?.step(1) }[event.key];
  if (!action) return;
  event.preventDefault();
  action();
}

function takeFile(files) {
  if (files.length) showUpload(files[0], byId("view").value, byId("answer"));
}

function wire() {
  byId("play").addEventListener("click", toggle);
  byId("back").addEventListener("click", () => player?.step(-1));
  byId("forward").addEventListener("click", () => player?.step(1));
  byId("opacity").addEventListener("input", draw);
  byId("file").addEventListener("change", (event) => {
    takeFile(event.target.files);
    event.target.value = "";
  });
  document.addEventListener("keydown", takeKey);
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    takeFile(event.dataTransfer.files);
  });
  window.addEventListener("resize", draw);
}

async function play() {
  const clip = await loadSample();
  player = new LivePlayer(clip, streamUrl(window.location));
  player.addEventListener("show", (event) => show(event.detail));
  player.addEventListener("state", (event) => showState(event.detail));
  player.addEventListener("ready", ({ detail }) => {
    write("model-figure", `${detail.model.name} ${detail.model.version}`);
  });
}

wire();
play().catch(() => notice("The sample clip could not be loaded."));
