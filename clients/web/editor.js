/** Corrects the ventricle's outline on one frame: points on it are dragged, or moved by the arrow keys. */

import { byId, write } from "./dom.js";
import { spoken } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";
const HANDLES = 20;
const STEPS = 6;
/** How near to a point, in CSS pixels, it is taken hold of: half of what WCAG 2.2 (2.5.5) wants for a finger. */
const REACH_PX = 22;
const MOVES = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

/** Points at equal distances along a closed outline of [row, column] points. */
export function spread(outline, count) {
  const closed = [...outline, outline[0]];
  const lengths = closed.slice(1).map(([row, column], index) => Math.hypot(row - closed[index][0], column - closed[index][1]));
  const step = lengths.reduce((sum, length) => sum + length, 0) / count;
  const points = [];
  let [along, next] = [0, 0];
  lengths.forEach((length, index) => {
    while (points.length < count && next < along + length + 1e-9 && length > 0) {
      const share = (next - along) / length;
      points.push([0, 1].map((axis) => closed[index][axis] + share * (closed[index + 1][axis] - closed[index][axis])));
      next += step;
    }
    along += length;
  });
  return points;
}

/**
 * A smooth closed outline through points; its last point repeats the first.
 *
 * Source: Yuksel, Schaefer and Keyser 2011, Parameterization and applications of Catmull-Rom curves: the centripetal
 * one, which between two points makes neither a loop nor a cusp, however unevenly the points lie.
 */
export function smooth(points) {
  const at = (index) => points[(index + points.length) % points.length];
  const outline = points.flatMap((_, index) => piece([-1, 0, 1, 2].map((step) => at(index + step))));
  return [...outline, outline[0]];
}

/** The outline from the second to the third of four points, without the third. */
function piece(four) {
  const knots = [0];
  for (const index of [0, 1, 2]) {
    const length = Math.hypot(...[0, 1].map((axis) => four[index + 1][axis] - four[index][axis]));
    knots.push(knots[index] + Math.max(Math.sqrt(length), 1e-3));
  }
  return Array.from({ length: STEPS }, (_, step) => {
    const t = knots[1] + (step / STEPS) * (knots[2] - knots[1]);
    let points = four;
    // Between neighbours, then between what came of them, until one point is left (Barry and Goldman 1988).
    for (const spans of [[[0, 1], [1, 2], [2, 3]], [[0, 2], [1, 3]], [[1, 2]]]) {
      points = spans.map(([from, to], index) => {
        const share = (t - knots[from]) / (knots[to] - knots[from]);
        return [0, 1].map((axis) => points[index][axis] + share * (points[index + 1][axis] - points[index][axis]));
      });
    }
    return points[0];
  });
}

/** The points and the buttons beside them. */
export class OutlineEditor {
  #onSave;
  #onClose;
  #points = [];
  #size = [0, 0];
  #tall = 1;
  #path = null;
  #turn = 0; // rises whenever points come or go, so that an answer that comes late is known for one

  /**
   * @param {(outline: number[][]) => Promise<void>} onSave told the corrected outline.
   * @param {() => void} onClose told when the points are gone.
   */
  constructor(onSave, onClose) {
    this.#onSave = onSave;
    this.#onClose = onClose;
    this.isOpen = false;
    byId("edit-save").addEventListener("click", () => this.#save());
    byId("edit-cancel").addEventListener("click", () => this.close());
    this.#wireDrag();
  }

  /** The point nearest to the pointer is dragged, since on a phone a finger is wider than a point. */
  #wireDrag() {
    const handles = byId("handles");
    let [held, beside] = [null, [0, 0]];
    handles.addEventListener("pointerdown", (event) => {
      held = this.#nearest(event);
      if (held === null) return;
      const under = this.#under(event);
      beside = this.#points[held].map((value, axis) => value - under[axis]);
      handles.setPointerCapture(event.pointerId);
      handles.querySelectorAll("circle")[held].focus({ preventScroll: true });
      event.preventDefault(); // else the focus would leave it again
    });
    handles.addEventListener("pointermove", (event) => {
      if (held === null || !handles.hasPointerCapture(event.pointerId)) return;
      this.#move(held, this.#under(event).map((value, axis) => value + beside[axis]));
    });
  }

  /** Index of the point nearest to the pointer, null where none is within reach. */
  #nearest(event) {
    const scale = byId("handles").getBoundingClientRect().width / this.#size[1];
    const [row, column] = this.#under(event);
    const away = this.#points.map((point) => scale * Math.hypot(this.#tall * (point[0] - row), point[1] - column));
    const least = Math.min(...away);
    return least > REACH_PX ? null : away.indexOf(least);
  }

  /**
   * Put points on an outline; where there is none, on an ellipse to begin with.
   *
   * @param {ImageBitmap} image that the outline belongs to.
   * @param {number[][]} outline of [row, column] points, or empty.
   * @param {number} tall how tall a pixel is, in widths of it.
   */
  open(image, outline, tall) {
    this.#turn += 1;
    this.#size = [image.height, image.width];
    this.#tall = tall;
    this.#points = spread(outline.length > 3 ? outline.slice(0, -1) : this.#ellipse(), HANDLES);
    this.#show(true);
    const handles = byId("handles");
    handles.setAttribute("viewBox", `-0.5 ${-0.5 * tall} ${image.width} ${image.height * tall}`);
    this.#path = document.createElementNS(SVG, "path");
    handles.replaceChildren(this.#path, ...this.#points.map((_, index) => this.#handle(index)));
    this.#draw();
    write("edit-words", "Drag the points, or move one by the arrow keys.");
  }

  /** Take the points away. */
  close() {
    if (!this.isOpen) return;
    this.#turn += 1;
    this.#show(false);
    write("edit-words", "");
    this.#onClose();
  }

  #show(isOpen) {
    this.isOpen = isOpen;
    byId("handles").toggleAttribute("hidden", !isOpen);
    byId("edit").hidden = isOpen;
    byId("edit-save").hidden = byId("edit-cancel").hidden = !isOpen;
    for (const id of ["play", "back", "forward", "scrub"]) byId(id).disabled = isOpen;
  }

  #ellipse() {
    const [rows, columns] = this.#size;
    return Array.from({ length: 40 }, (_, index) => {
      const angle = (index / 40) * 2 * Math.PI;
      return [rows * (0.45 + 0.2 * Math.cos(angle)), columns * (0.5 + 0.1 * Math.sin(angle))];
    });
  }

  #handle(index) {
    const circle = document.createElementNS(SVG, "circle");
    circle.setAttribute("r", String(Math.max(this.#tall * this.#size[0], this.#size[1]) / 110));
    circle.setAttribute("tabindex", "0");
    circle.setAttribute("role", "button");
    circle.addEventListener("keydown", (event) => {
      const move = MOVES[event.key];
      if (!move) return;
      event.preventDefault();
      event.stopPropagation();
      const by = event.shiftKey ? 5 : 1;
      this.#move(index, this.#points[index].map((value, axis) => value + by * move[axis]));
    });
    return circle;
  }

  #under(event) {
    const { left, top, width, height } = byId("handles").getBoundingClientRect();
    const [rows, columns] = this.#size;
    return [((event.clientY - top) / height) * rows - 0.5, ((event.clientX - left) / width) * columns - 0.5];
  }

  #move(index, point) {
    this.#points[index] = point.map((value, axis) => Math.min(this.#size[axis] - 1, Math.max(0, value)));
    this.#draw();
  }

  #draw() {
    const text = smooth(this.#points).map(([row, column]) => `${column.toFixed(2)} ${(row * this.#tall).toFixed(2)}`);
    this.#path.setAttribute("d", `M${text.join("L")}Z`);
    [...byId("handles").querySelectorAll("circle")].forEach((circle, index) => {
      const [row, column] = this.#points[index];
      circle.setAttribute("cx", column);
      circle.setAttribute("cy", row * this.#tall);
      circle.setAttribute("aria-label", `Point ${index + 1} of ${HANDLES}, row ${row.toFixed(0)}, column ${column.toFixed(0)}`);
    });
  }

  async #save() {
    const turn = this.#turn;
    write("edit-words", "Measuring anew …");
    byId("edit-save").disabled = true;
    let error = null;
    try {
      await this.#onSave(smooth(this.#points).map((point) => point.map((value) => Math.round(10 * value) / 10)));
    } catch (caught) {
      error = caught;
    }
    byId("edit-save").disabled = false;
    if (this.#turn !== turn) return; // cancelled, or another picture is shown or edited by now
    if (!error) this.close();
    write("edit-words", error ? spoken(error.message) : "Measured anew with your outline.");
  }
}
