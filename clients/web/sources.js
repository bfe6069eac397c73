/** Where live pictures come from: the sample, a clip on the server, a film, a camera, a screen. */

import { clipPath } from "./gdkvm.js";
import { knownTimesMs, lapOf } from "./times.js";

const LONGEST_SIDE_PX = 800;
const SHORTEST_SIDE_PX = 16; // of what a server takes
const FETCHES_AT_ONCE = 8;
const WHOLE = { left: 0, top: 0, right: 1, bottom: 1 };

/**
 * A source has `label`, the fields of `hello` that it knows, `crop`, `isLive` (nothing to play again), and
 * `start(worker)`, `stop()` and `run(isRunning)`.
 *
 * @typedef {{label: string, hello: object, crop: object, isLive: boolean, start: (worker: Worker) => void,
 *   stop: () => void, run: (isRunning: boolean) => void}} Source
 */

/**
 * The clip that every server carries.
 *
 * @returns {Promise<Source>}
 */
export async function openSample(server) {
  const clip = await server.ask("/sample.json");
  const paths = Array.from({ length: clip.frames }, (_, index) => `/sample/${index}.jpg`);
  const { size, view, region, spacing_mm, frame_time_ms: frameMs } = clip;
  const hello = { size, view, region, spacing_mm, fps: 1000 / frameMs };
  return loop("The sample clip, looped.", hello, await fetchAll(server, paths), paths.map((_, index) => index * frameMs));
}

/**
 * A clip that the server has read, played again as a live stream.
 *
 * @returns {Promise<Source>}
 */
export async function openClip(server, id, { clip, frames }, label) {
  const paths = frames.map((_, index) => clipPath(id, "frames", `${index}.jpg`));
  const timesMs = knownTimesMs(frames);
  const fps = timesMs && (1000 * frames.length) / lapOf(timesMs);
  const view = ["A4C", "A2C"].includes(clip.view) ? clip.view : null;
  const hello = { size: clip.size, view, spacing_mm: clip.spacing_mm, fps };
  const pace = timesMs ? "" : " Its frame rate is unknown; it is shown at 30 a second.";
  return loop(`${label}, looped.${pace}`, hello, await fetchAll(server, paths), timesMs);
}

async function fetchAll(server, paths) {
  const files = new Array(paths.length);
  const waiting = paths.entries();
  const fetchNext = async () => {
    for (const [index, path] of waiting) files[index] = await server.file(path);
  };
  await Promise.all(Array.from({ length: FETCHES_AT_ONCE }, fetchNext));
  return files;
}

function loop(label, hello, pictures, timesMs) {
  const start = (worker) => worker.postMessage({ type: "clip", pictures, timesMs });
  return { label, hello, pictures, crop: WHOLE, isLive: false, start, stop: () => {}, run: () => {} };
}

/**
 * A film that the browser can decode; it is streamed frame by frame and never uploaded.
 *
 * @param {File} file
 * @returns {Promise<Source|null>} null where the browser cannot play it.
 */
export async function openFilm(file) {
  const video = document.createElement("video");
  Object.assign(video, { muted: true, loop: true, playsInline: true, src: URL.createObjectURL(file) });
  const isPlayable = await new Promise((resolve) => {
    video.onloadeddata = () => resolve(video.videoWidth > 0);
    video.onerror = () => resolve(false);
  });
  if (!isPlayable) {
    URL.revokeObjectURL(video.src);
    return null;
  }
  let pump = null;
  return {
    label: `${file.name}, looped.`,
    hello: { size: fitted(video.videoWidth, video.videoHeight) },
    crop: WHOLE,
    isLive: false,
    start: (worker) => {
      pump = pumpVideo(video, worker);
    },
    stop: () => {
      pump?.();
      video.pause();
      URL.revokeObjectURL(video.src);
    },
    pause: () => pump?.(),
    run: (isRunning) => (isRunning ? video.play() : video.pause()),
  };
}

/**
 * A camera or capture card.
 *
 * @param {string|null} deviceId of `videoInputs`, null for the browser's choice.
 * @returns {Promise<Source>}
 */
export async function openCamera(deviceId = null) {
  const wish = { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } };
  const video = deviceId ? { ...wish, deviceId: { exact: deviceId } } : wish;
  return capture(await navigator.mediaDevices.getUserMedia({ video, audio: false }));
}

/**
 * A screen or a window, as a shared screen.
 *
 * @returns {Promise<Source>}
 */
export async function openScreen() {
  return capture(await navigator.mediaDevices.getDisplayMedia({ video: { frameRate: 30 }, audio: false }));
}

/** The cameras and capture cards there are; their names are known only once one was allowed. */
export async function videoInputs() {
  const devices = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
  return devices.filter((device) => device.kind === "videoinput");
}

async function capture(media) {
  const [track] = media.getVideoTracks();
  const video = document.createElement("video");
  Object.assign(video, { muted: true, playsInline: true, srcObject: media });
  await video.play();
  const source = {
    label: `${track.label || "Camera"}, live. Pictures go to this server and are not kept.`,
    hello: { size: fitted(video.videoWidth, video.videoHeight) },
    crop: WHOLE,
    isLive: true,
    onended: null,
    start: (worker) => {
      stopPump = pumpTrack(track, video, worker);
    },
    stop: () => {
      stopPump();
      track.stop();
      video.srcObject = null;
    },
    run: () => {},
    pause: () => stopPump(),
  };
  let stopPump = () => {};
  track.onended = () => source.onended?.();
  return source;
}

/** Hand a track's frames to the worker: by WebCodecs where there is one, else by way of a video. */
function pumpTrack(track, video, worker) {
  if (!("MediaStreamTrackProcessor" in window)) return pumpVideo(video, worker);
  video.pause();
  const copy = track.clone();
  const { readable } = new window.MediaStreamTrackProcessor({ track: copy });
  worker.postMessage({ type: "frames", readable }, [readable]);
  return () => copy.stop();
}

function pumpVideo(video, worker) {
  let isOn = true;
  let [lapUs, lastUs] = [0, -1];
  const take = async (_, { mediaTime }) => {
    if (!isOn) return;
    video.requestVideoFrameCallback(take);
    let timeUs = lapUs + mediaTime * 1e6;
    if (timeUs <= lastUs && video.loop) {
      lapUs = lastUs + 1e6 / 30;
      timeUs = lapUs + mediaTime * 1e6;
    }
    lastUs = timeUs;
    const bitmap = await createImageBitmap(video);
    worker.postMessage({ type: "bitmap", bitmap, timeUs }, [bitmap]);
  };
  video.requestVideoFrameCallback(take);
  video.play();
  return () => {
    isOn = false;
  };
}

/** Rows and columns of the pictures that are sent: no larger than helps the network. */
function fitted(width, height) {
  const scale = Math.min(1, LONGEST_SIDE_PX / Math.max(width, height));
  return [height, width].map((side) => Math.max(SHORTEST_SIDE_PX, Math.round(side * scale)));
}

/**
 * A part of a source: only that is sent, so that names and menus around it never leave the page.
 *
 * @param {Source} source
 * @param {{left: number, top: number, right: number, bottom: number}|null} part shares, 0 to 1, of what the source
 *   shows, which may be a part already; null for the whole.
 */
export function cropped(source, part) {
  const whole = source.whole ?? source.hello.size;
  const { left, top, right, bottom } = source.crop;
  const [width, height] = [right - left, bottom - top];
  const crop = part === null ? WHOLE : {
    left: left + part.left * width, top: top + part.top * height,
    right: left + part.right * width, bottom: top + part.bottom * height,
  };
  const size = fitted(whole[1] * (crop.right - crop.left), whole[0] * (crop.bottom - crop.top));
  return { ...source, whole, crop, hello: { ...source.hello, size } };
}
