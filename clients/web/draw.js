/** Draws frames with their outlines, and curves over time. */

export const STRUCTURES = {
  atrium: { colour: "#cc79a7", width: 1.6, dash: [5, 4] },
  myocardium: { colour: "#e69f00", width: 1.6, dash: [] },
  lv: { colour: "#56b4e9", width: 2.4, dash: [] },
};
const SOFT = "#93a1b3";
const LINE = "#253040";

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
 * Draw one frame and the outlines of its mask.
 *
 * @param {HTMLCanvasElement} canvas
 * @param {ImageBitmap} image
 * @param {Object<string, number[][][]>|null} contours per structure closed outlines of [row, column]
 *   in image pixels, pixel centres at integers.
 * @param {number} opacity of the outlines, 0 to 1.
 */
export function drawFrame(canvas, image, contours, opacity) {
  canvas.style.aspectRatio = `${image.width} / ${image.height}`;
  const { context, width } = fitted(canvas);
  const scale = width / image.width;
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, image.width * scale, image.height * scale);
  if (!contours || opacity === 0) return;
  for (const [name, style] of Object.entries(STRUCTURES)) {
    const path = outline(contours[name] ?? [], scale);
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

function outline(polylines, scale) {
  const path = new Path2D();
  for (const points of polylines) {
    points.forEach(([row, column], index) => {
      const [x, y] = [(column + 0.5) * scale, (row + 0.5) * scale];
      if (index === 0) path.moveTo(x, y);
      else path.lineTo(x, y);
    });
    path.closePath();
  }
  return path;
}

/**
 * Draw a curve over time with marks.
 *
 * @param {HTMLCanvasElement} canvas
 * @param {{seconds: number, value: number|null}[]} points in the order of time; null breaks the line.
 * @param {{seconds: number, label: string}[]} marks such as ED and ES.
 * @param {number} span seconds shown at least.
 */
export function drawCurve(canvas, points, marks, span) {
  const { context, width, height } = fitted(canvas);
  const values = points.map((point) => point.value).filter((value) => value !== null);
  if (!values.length) return;
  const [left, right, top, bottom] = [38, 8, 16, 18];
  const [low, high] = niceRange(Math.min(...values), Math.max(...values));
  const start = points[0].seconds;
  const length = Math.max(span, points.at(-1).seconds - start) || 1;
  const x = (seconds) => left + ((seconds - start) / length) * (width - left - right);
  const y = (value) => height - bottom - ((value - low) / (high - low)) * (height - top - bottom);

  context.font = "11px system-ui, sans-serif";
  context.fillStyle = SOFT;
  context.strokeStyle = LINE;
  context.lineWidth = 1;
  context.textAlign = "right";
  context.textBaseline = "middle";
  for (const level of [low, (low + high) / 2, high]) {
    line(context, left, y(level), width - right, y(level));
    context.fillText(level.toFixed(high - low < 4 ? 1 : 0), left - 6, y(level));
  }
  context.textAlign = "center";
  context.textBaseline = "bottom";
  for (let second = Math.ceil(start); second <= start + length; second += Math.ceil(length / 8)) {
    context.fillText(`${second} s`, x(second), height);
  }
  context.textBaseline = "alphabetic";
  drawLine(context, points, x, y);
  drawMarks(context, points, marks, x, y, height - bottom);
}

function drawLine(context, points, x, y) {
  context.strokeStyle = STRUCTURES.lv.colour;
  context.lineWidth = 2;
  context.lineJoin = "round";
  context.beginPath();
  let isPenDown = false;
  for (const { seconds, value } of points) {
    if (value === null) isPenDown = false;
    else if (isPenDown) context.lineTo(x(seconds), y(value));
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
