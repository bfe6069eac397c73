/** The live page: the sample plays at once; a file, a camera or a screen takes its place. */

import { openServer, readOffers, storedKey } from "./access.js";
import { offerCrop, wireCrop } from "./crop.js";
import { drawFrame, drawNext, tallness } from "./draw.js";
import { byId, make, takeKeys, wireHelp, write } from "./dom.js";
import { LiveView } from "./live.js";
import { log, notice, showBeats, showCurve, showFigures, showReady, showState, showUnmeasured } from "./readings.js";
import { cropped, openCamera, openClip, openFilm, openSample, openScreen, videoInputs } from "./sources.js";
import { sentence, spoken } from "./words.js";

const TEXT_MS = 200;
const STEP = 10;
/** Why a file as such has no ejection fraction, whatever is measured in its pictures. */
const FILE_REASONS = new Set(["colour_overlay", "view_not_apical"]);

const reached = openServer();
let openings = 0;
let view = null;
let shown = null;
let lastTextMs = 0;
let lastOpacity = 85;

function draw() {
  if (!shown) return;
  const tall = tallness(view.source.hello.spacing_mm);
  drawFrame(byId("image"), shown.image, shown.contours, byId("opacity").valueAsNumber / 100, tall);
}

/** Show one frame, once its picture is decoded; where one comes sooner, the earlier is left out. */
const decode = drawNext((image, frame) => {
  shown?.image.close();
  shown = { image, contours: frame.result?.mask?.contours ?? null };
  draw();
});

function show(frame) {
  decode(frame.picture, frame);
  if (!frame.result) return showUnmeasured(view);
  showCurve(view);
  showPlace(frame.index);
  const now = performance.now();
  if (!view.isFrozen && now - lastTextMs < TEXT_MS) return undefined; // figures that can be read
  lastTextMs = now;
  return showFigures(view, frame.result);
}

function showPlace(index) {
  const last = view.history.length - 1;
  const scrub = byId("scrub");
  scrub.max = last;
  scrub.value = index;
  if (!view.isFrozen) return write("place", "");
  const seconds = view.history[last].seconds - view.history[index].seconds;
  const text = `${index + 1} of ${last + 1}, ${seconds.toFixed(2)} s ago`;
  scrub.setAttribute("aria-valuetext", text);
  return write("place", text);
}

function showFrozen({ isFrozen }) {
  write("play", isFrozen ? "Go on" : "Freeze");
  byId("badge").hidden = !isFrozen;
  for (const id of ["back", "forward", "scrub"]) byId(id).disabled = !isFrozen;
  if (isFrozen && view.history.length) view.seek(view.cursor);
  else write("place", "");
}

/** Take another source; the one before is left. */
function watch(source, { keepSource = false } = {}) {
  view?.close({ keepSource });
  view = new LiveView(source, { key: storedKey(), view: byId("view").value });
  view.addEventListener("show", ({ detail }) => show(detail));
  view.addEventListener("state", ({ detail }) => showState(detail));
  view.addEventListener("ready", ({ detail }) => showReady(detail));
  view.addEventListener("drain", () => log("The server is going away; the session can be resumed."));
  view.addEventListener("frozen", ({ detail }) => showFrozen(detail));
  view.addEventListener("beat", () => showBeats(view));
  showBeats(view);
  showFrozen({ isFrozen: false });
  notice("notice", "");
  write("source", source.label);
  offerCrop(source.pictures === undefined);
}

/**
 * Show which source is on, after it could be opened; else say why not. Of several that are being opened only the
 * last one asked for is shown, whichever is ready first.
 */
async function open(button, opening) {
  const number = ++openings;
  const isLast = () => number === openings;
  notice("notice", "");
  try {
    const source = await opening(isLast);
    if (!source) return;
    if (!isLast()) {
      source.stop();
      return;
    }
    watch(source);
    source.onended = () => end(source);
    for (const each of document.querySelectorAll(".sources [aria-pressed]")) {
      each.setAttribute("aria-pressed", String(each === button));
    }
    await showDevices(button === byId("source-camera"));
  } catch (error) {
    if (isLast()) notice("notice", refusal(error));
  }
}

function end(source) {
  if (view.source !== source && view.source.whole === undefined) return;
  view.freeze(true);
  notice("notice", "The source has ended.");
}

/** What went wrong, in words; the browser's own errors are known by name. */
function refusal(error) {
  const words = {
    NotAllowedError: "The browser was not allowed to take pictures from there.",
    NotFoundError: "There is no camera or capture card.",
    NotReadableError: "Another program holds the camera.",
    OverconstrainedError: "This device is no longer there.",
  };
  return words[error.name] ?? spoken(error.message);
}

function playSample() {
  return open(byId("source-sample"), async () => openSample(await reached));
}

async function showDevices(isCamera) {
  const devices = isCamera ? await videoInputs() : [];
  byId("device-label").hidden = devices.length < 2;
  const chosen = byId("device").value;
  byId("device").replaceChildren(...devices.map(({ deviceId, label }) => make("option", { value: deviceId, textContent: label })));
  if (chosen) byId("device").value = chosen;
}

/** A film plays in the browser; what the browser cannot decode, the server reads first. */
async function openFile(file, isLast) {
  return (await openFilm(file)) ?? uploaded(file, isLast);
}

async function uploaded(file, isLast) {
  const tell = (text) => isLast() && notice("notice", text);
  const server = await reached;
  const offers = await readOffers(server);
  const onProgress = (share) => tell(`Sending ${file.name}, ${Math.round(100 * share)} %`);
  const { id } = await server.upload(file, { view: byId("view").value, onProgress });
  for await (const { state, progress, error } of server.follow(id)) {
    if (!isLast()) return null;
    if (state === "failed") throw new Error(error.message);
    tell(`Reading ${file.name}${progress === null ? "" : `, ${Math.round(100 * progress)} %`}`);
  }
  const result = await server.result(id);
  // The stream gets the pictures in grey: it could not tell.
  const against = result.ef.reasons.filter((reason) => FILE_REASONS.has(reason));
  if (against.length) throw new Error(`${sentence(against, "This clip is not played live: ")} Its result is among the clips.`);
  if (!offers("get", "/v1/clips/{}/frames/{}.jpg")) {
    window.location.href = `clips.html#${id}`;
    return null;
  }
  return openClip(server, id, result, file.name);
}

function changeOpacity(by) {
  byId("opacity").value = byId("opacity").valueAsNumber + by;
  draw();
}

function toggleOutlines() {
  const opacity = byId("opacity");
  if (opacity.valueAsNumber > 0) lastOpacity = opacity.valueAsNumber;
  opacity.value = opacity.valueAsNumber > 0 ? 0 : lastOpacity;
  draw();
}

function step(by) {
  if (view?.isFrozen) view.seek(view.cursor + by);
}

function seekBeat(field) {
  if (!view.isFrozen) view.freeze(true);
  view.seekBeat(field);
}

function wireKeys() {
  takeKeys({
    " ": () => view?.freeze(),
    ArrowLeft: (event) => step(event.shiftKey ? -STEP : -1),
    ArrowRight: (event) => step(event.shiftKey ? STEP : 1),
    Home: () => step(-Infinity),
    End: () => step(Infinity),
    d: () => seekBeat("ed_seq"),
    s: () => seekBeat("es_seq"),
    o: toggleOutlines,
    "+": () => changeOpacity(10),
    "-": () => changeOpacity(-10),
    "?": () => byId("help").showModal(),
  });
}

function wireSources() {
  const camera = () => open(byId("source-camera"), () => openCamera(byId("device").value || null));
  byId("source-sample").addEventListener("click", playSample);
  byId("source-camera").addEventListener("click", camera);
  byId("device").addEventListener("change", camera);
  byId("source-screen").addEventListener("click", (event) => open(event.target, openScreen));
  byId("source-camera").hidden = !navigator.mediaDevices?.getUserMedia;
  byId("source-screen").hidden = !navigator.mediaDevices?.getDisplayMedia;
  byId("view").addEventListener("change", () => view && watch(view.source, { keepSource: true }));
  byId("file").addEventListener("change", ({ target }) => {
    const [file] = target.files;
    if (file) open(null, (isLast) => openFile(file, isLast));
    target.value = "";
  });
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    const [file] = event.dataTransfer.files;
    if (file) open(null, (isLast) => openFile(file, isLast));
  });
}

function wire() {
  byId("play").addEventListener("click", () => view?.freeze());
  byId("back").addEventListener("click", () => step(-1));
  byId("forward").addEventListener("click", () => step(1));
  byId("scrub").addEventListener("input", ({ target }) => view.seek(target.valueAsNumber));
  byId("opacity").addEventListener("input", draw);
  // Who moved it by hand goes on with the keys of the picture, not with those of the slider.
  for (const id of ["opacity", "scrub"]) byId(id).addEventListener("pointerup", ({ target }) => target.blur());
  window.addEventListener("resize", () => {
    draw();
    if (view) showCurve(view);
  });
  // A clip that nobody sees need not be streamed; a camera goes on.
  document.addEventListener("visibilitychange", () => {
    if (view && !view.source.isLive && document.hidden && !view.isFrozen) view.freeze(true);
  });
  wireCrop((part) => watch(cropped(view.source, part), { keepSource: true }));
  wireSources();
  wireKeys();
  wireHelp();
}

async function begin() {
  wire();
  await playSample();
  // Who asked the system for less motion is shown a still picture first.
  if (window.matchMedia("(prefers-reduced-motion: reduce)").matches) {
    view?.addEventListener("beat", () => view.freeze(true), { once: true });
  }
}

begin();
