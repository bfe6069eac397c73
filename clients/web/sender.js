/**
 * The worker that streams: it takes pictures, makes JPEGs of them, sends them and reports what came back.
 *
 * Messages in: `open` {key, hello, crop}, then one source of pictures: `clip` {pictures, timesMs}, a film to play
 * in a loop, its times null where nobody knows them; `frames` {readable} of WebCodecs' VideoFrames; or `bitmap` {bitmap, timeUs} one by one. `run` {isRunning}
 * stops and goes on, `retry` connects at once, `close` ends.
 *
 * Messages out: the events of GdkvmStream as {type, detail}; `answer` {result, picture, answerMs, skipped} with the
 * very JPEG that was measured; and `picture` {picture} for what could not be sent, so that the image goes
 * on while the server is away.
 *
 * Every frame is a JPEG of its own: after a cut no decoder waits for a key frame.
 */

import { GdkvmServer } from "./gdkvm.js";
import { lapOf, UNKNOWN_FRAME_MS } from "./times.js";

const JPEG = { type: "image/jpeg", quality: 0.92 };
const STALL_MS = 700;
const BREAK_MS = 500;
const FAREWELL_MS = 2000;
const EVENTS = ["state", "ready", "dropped", "beat", "drain", "error"];

let stream = null;
let canvas = null;
let crop = null;
let isRunning = true;
let seq = 0;
let skipped = 0;
let heardMs = 0;
const sent = new Map();

const takers = {
  open: takeOpen,
  clip: playClip,
  frames: takeFrames,
  bitmap: takeBitmap,
  run: (message) => {
    isRunning = message.isRunning;
  },
  retry: () => stream?.retryNow(),
  close: () => {
    isRunning = false;
    stream?.close();
    // A worker that ends at once takes its last word along: the server would keep the session to be resumed.
    setTimeout(() => self.close(), FAREWELL_MS);
  },
};
self.onmessage = ({ data }) => takers[data.type](data);
self.addEventListener("online", () => stream?.retryNow());

function takeOpen(message) {
  const [rows, columns] = message.hello.size;
  crop = message.crop;
  canvas = new OffscreenCanvas(columns, rows);
  stream = new GdkvmServer({ key: message.key }).openStream(message.hello);
  for (const type of EVENTS) stream.addEventListener(type, ({ detail }) => self.postMessage({ type, detail }));
  stream.addEventListener("ready", ({ detail }) => {
    if (!detail.resumed) sent.clear();
  });
  stream.addEventListener("dropped", ({ detail }) => sent.delete(detail.seq));
  stream.addEventListener("result", ({ detail }) => takeResult(detail));
}

function takeResult(result) {
  heardMs = performance.now();
  const frame = sent.get(result.seq);
  if (!frame) return;
  sent.delete(result.seq);
  const answerMs = heardMs - frame.sentMs;
  self.postMessage({ type: "answer", result, picture: frame.picture, answerMs, skipped });
}

/** Send one JPEG; where that cannot be, or no answer comes, show it as it is. */
function send(bytes, picture, timeUs) {
  const now = performance.now();
  const isQuiet = sent.size > 0 && now - heardMs > STALL_MS;
  if (sent.size === 0) heardMs = now;
  if (stream.send(bytes, { seq, timeUs })) sent.set(seq, { picture, sentMs: now });
  else skipped += 1;
  if (isQuiet || stream.state !== "live") self.postMessage({ type: "picture", picture });
  seq += 1;
}

async function playClip({ pictures, timesMs }) {
  const frames = await Promise.all(pictures.map(async (picture) => [await picture.arrayBuffer(), picture]));
  const shownMs = timesMs ?? pictures.map((_, index) => index * UNKNOWN_FRAME_MS);
  const lapMs = lapOf(shownMs);
  const startMs = (index) => Math.floor(index / frames.length) * lapMs + shownMs[index % frames.length];
  let index = 0;
  let dueMs = performance.now();
  const tick = () => {
    const now = performance.now();
    // After a break the clip goes on from here instead of catching up.
    if (now - dueMs > BREAK_MS) dueMs = now;
    dueMs += startMs(index + 1) - startMs(index);
    if (isRunning) {
      const [bytes, picture] = frames[index % frames.length];
      // A time that was made up would be measured: a heart rate came of it.
      send(bytes, picture, timesMs && Math.round(1000 * startMs(index)));
      index += 1;
    }
    setTimeout(tick, Math.max(0, dueMs - performance.now()));
  };
  tick();
}

async function takeFrames({ readable }) {
  const reader = readable.getReader();
  for (;;) {
    const { done, value: frame } = await reader.read();
    if (done) return;
    const size = [frame.displayWidth, frame.displayHeight];
    if (isRunning) await takeImage(frame, size, frame.timestamp);
    frame.close();
  }
}

let isBusy = false;

async function takeBitmap({ bitmap, timeUs }) {
  if (isRunning && !isBusy) {
    isBusy = true;
    await takeImage(bitmap, [bitmap.width, bitmap.height], timeUs);
    isBusy = false;
  }
  bitmap.close();
}

/** Draw one image at the size that hello promised, whatever size it has by now, and send it. */
async function takeImage(image, [width, height], timeUs) {
  if (stream.state === "failed" || stream.state === "closed") return;
  const { left, top, right, bottom } = crop;
  const [cutWidth, cutHeight] = [width * (right - left), height * (bottom - top)];
  const scale = Math.min(canvas.width / cutWidth, canvas.height / cutHeight);
  const [shownWidth, shownHeight] = [cutWidth * scale, cutHeight * scale];
  const context = canvas.getContext("2d", { alpha: false });
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(
    image, width * left, height * top, cutWidth, cutHeight,
    (canvas.width - shownWidth) / 2, (canvas.height - shownHeight) / 2, shownWidth, shownHeight,
  );
  const picture = await canvas.convertToBlob(JPEG).catch(() => null);
  if (picture) send(await picture.arrayBuffer(), picture, Math.round(timeUs));
  else skipped += 1; // one that cannot be encoded is left out: those after it are sent
}
