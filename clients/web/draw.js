/** Draws frames with their outlines, and curves over time. */

export const STRUCTURES = {
  atrium: { colour: "#cc79a7", width: 1.6, dash: [5, 4] },
  myocardium: { colour: "#e69f00", width: 1.6, dash: [] },
  lv: { colour: "#56b4e9", width: 2.4, dash: [] },
};
const SOFT = "#93a1b3";
const LINE = "#253040";
const NOTE = "#f0c04a";

/** Fit a canvas's pixels to its size on the screen; returns its context in CSS pixels. */
function fitted(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = canvas;
  const [columns, rows] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== columns || canvas.height !== rows) {
    canvas.width = columns;
    canvas.height = rows;
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

/**
 * How tall a pixel is, in widths of it: 1 where it is square or its size is unknown.
 *
 * @param {[number, number]|null|undefined} spacingMm row and column size.
 */
export function tallness(spacingMm) {
  return spacingMm ? spacingMm[0] / spacingMm[1] : 1;
}

/**
 * Draw one frame and the outlines of its mask.
 *
 * @param {HTMLCanvasElement} canvas
 * @param {ImageBitmap} image
 * @param {Object<string, number[][][]>|null} contours per structure closed outlines of [row, column]
 *   in image pixels, pixel centres at integers.
 * @param {number} opacity of the outlines, 0 to 1.
 * @param {number} tall how tall a pixel is, in widths of it.
 */
export function drawFrame(canvas, image, contours, opacity, tall) {
  canvas.parentElement.style.setProperty("--ratio", image.width / (image.height * tall));
  const { context, width } = fitted(canvas);
  const scale = width / image.width;
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, image.width * scale, image.height * tall * scale);
  if (!contours || opacity === 0) return;
  for (const [name, style] of Object.entries(STRUCTURES)) {
    const path = outline(contours[name] ?? [], scale, tall * scale);
    context.globalAlpha = opacity;
    context.strokeStyle = style.colour;
    context.lineWidth = style.width;
    context.lineJoin = "round";
    context.setLineDash(style.dash);
    context.stroke(path);
    if (name === "lv") {
      context.globalAlpha = 0.14 * opacity;
      context.fillStyle = style.colour;
      context.fill(path, "evenodd");
    }
  }
  context.globalAlpha = 1;
  context.setLineDash([]);
}

function outline(polylines, scaleX, scaleY) {
  const path = new Path2D();
  for (const points of polylines) {
    points.forEach(([row, column], index) => {
      const [x, y] = [(column + 0.5) * scaleX, (row + 0.5) * scaleY];
      if (index === 0) path.moveTo(x, y);
      else path.lineTo(x, y);
    });
    path.closePath();
  }
  return path;
}

/**
 * Decode pictures one after the other; while one is decoded, of those that come only the last is kept.
 *
 * @param {(image: ImageBitmap, frame: object) => void} show
 * @returns {(picture: Blob, frame: object) => void}
 */
export function drawNext(show) {
  let isBusy = false;
  let next = null;
  const run = async () => {
    isBusy = true;
    while (next) {
      const [picture, frame] = next;
      next = null;
      // One that cannot be decoded is left out: those after it are shown.
      const image = await createImageBitmap(picture).catch(() => null);
      if (image) show(image, frame);
    }
    isBusy = false;
  };
  return (picture, frame) => {
    next = [picture, frame];
    if (!isBusy) run();
  };
}

const TICKS_S = [0.1, 0.2, 0.5, 1, 2, 5, 10];
const PAD = { left: 38, right: 8, top: 16, bottom: 18 };

/**
 * Draw a curve over time with marks.
 *
 * @param {HTMLCanvasElement} canvas
 * @param {{seconds: number, value: number|null}[]} points in the order of time; null breaks the line.
 * @param {{seconds: number, label: string}[]} marks such as ED and ES.
 * @param {{start?: number, span?: number, gap?: number, cursor?: number|null, notes?: number[]}} options start: first
 *   second shown, else that of the first point. span: seconds shown at least. gap: seconds without a point that break
 *   the line. cursor: the time of the frame that is shown. notes: times at which the session was resumed.
 */
export function drawCurve(canvas, points, marks, options = {}) {
  const { span = 0, gap = Infinity, cursor = null, notes = [] } = options;
  const { context, width, height } = fitted(canvas);
  const values = points.map((point) => point.value).filter((value) => value !== null);
  if (!values.length) {
    context.font = "13px system-ui, sans-serif";
    context.fillStyle = SOFT;
    context.textAlign = "center";
    context.fillText("No ventricle has been measured in these seconds.", width / 2, height / 2);
    return;
  }
  const [low, high] = niceRange(Math.min(...values), Math.max(...values));
  const { start, length } = timeSpan(points, span, options.start);
  const floor = height - PAD.bottom;
  const x = (seconds) => PAD.left + ((seconds - start) / length) * (width - PAD.left - PAD.right);
  const y = (value) => floor - ((value - low) / (high - low)) * (floor - PAD.top);

  context.font = "11px system-ui, sans-serif";
  context.fillStyle = SOFT;
  context.strokeStyle = LINE;
  context.lineWidth = 1;
  context.textAlign = "right";
  context.textBaseline = "middle";
  for (const level of [low, (low + high) / 2, high]) {
    line(context, PAD.left, y(level), width - PAD.right, y(level));
    context.fillText(level.toFixed(high - low < 4 ? 1 : 0), PAD.left - 6, y(level));
  }
  context.textAlign = "center";
  context.textBaseline = "bottom";
  const step = TICKS_S.find((each) => length / each <= 8) ?? Math.ceil(length / 8);
  for (let tick = Math.ceil(start / step - 1e-9); tick * step <= start + length; tick += 1) {
    const label = `${(tick * step).toFixed(step < 1 ? 1 : 0)} s`;
    if (x(tick * step) < width - 12) context.fillText(label, x(tick * step), height);
  }
  context.textBaseline = "alphabetic";
  drawNotes(context, notes.filter((note) => note >= start && note <= start + length).map(x), floor);
  drawLine(context, points, gap, x, y);
  drawMarks(context, points, marks, x, y, floor);
  if (cursor !== null) drawCursor(context, x(cursor), floor);
}

/**
 * The time under a place of a curve that `drawCurve` drew.
 *
 * @param {number} clientX of the pointer.
 */
export function secondsAt(canvas, points, clientX, span = 0) {
  const { left, width } = canvas.getBoundingClientRect();
  const { start, length } = timeSpan(points, span);
  const share = (clientX - left - PAD.left) / (width - PAD.left - PAD.right);
  return start + Math.min(1, Math.max(0, share)) * length;
}

function timeSpan(points, span, start = points[0].seconds) {
  return { start, length: Math.max(span, points.at(-1).seconds - start) || 1 };
}

function drawNotes(context, places, floor) {
  context.fillStyle = context.strokeStyle = NOTE;
  context.textAlign = "left";
  for (const place of places) {
    context.setLineDash([4, 3]);
    line(context, place, PAD.top, place, floor);
    context.setLineDash([]);
    context.fillText("resumed", place + 4, floor - 4);
  }
}

function drawCursor(context, place, floor) {
  context.strokeStyle = "#ffffff";
  context.lineWidth = 1.5;
  line(context, place, PAD.top - 6, place, floor);
}

function drawLine(context, points, gap, x, y) {
  context.strokeStyle = STRUCTURES.lv.colour;
  context.lineWidth = 2;
  context.lineJoin = "round";
  context.beginPath();
  let isPenDown = false;
  let last = -Infinity;
  for (const { seconds, value } of points) {
    if (value === null || seconds - last > gap) isPenDown = false;
    last = seconds;
    if (value === null) continue;
    if (isPenDown) context.lineTo(x(seconds), y(value));
    else {
      context.moveTo(x(seconds), y(value));
      isPenDown = true;
    }
  }
  context.stroke();
}

function drawMarks(context, points, marks, x, y, floor) {
  context.textAlign = "center";
  for (const { seconds, label } of marks) {
    const point = points.find((each) => Math.abs(each.seconds - seconds) < 1e-6);
    if (!point || point.value === null) continue;
    context.strokeStyle = SOFT;
    context.lineWidth = 1;
    context.setLineDash([2, 3]);
    line(context, x(seconds), y(point.value), x(seconds), floor);
    context.setLineDash([]);
    context.fillStyle = "#ffffff";
    context.beginPath();
    context.arc(x(seconds), y(point.value), 3, 0, 2 * Math.PI);
    context.fill();
    context.fillText(label, x(seconds), y(point.value) - 6);
  }
}

function line(context, fromX, fromY, toX, toY) {
  context.beginPath();
  context.moveTo(fromX, fromY);
  context.lineTo(toX, toY);
  context.stroke();
}

/** A range around [low, high] that ends on round numbers and is never empty. */
function niceRange(low, high) {
  const room = Math.max(high - low, 0.02 * Math.abs(high), 1e-6);
  const step = 10 ** Math.floor(Math.log10(room)) / 2;
  return [Math.floor((low - 0.05 * room) / step) * step, Math.ceil((high + 0.05 * room) / step) * step];
}
