/** Chooses the part of the picture that is sent: by dragging over the image, or by numbers. */

import { byId } from "./dom.js";

const SIDES = ["left", "top", "right", "bottom"];
const LEAST = 0.1;

/**
 * @param {(crop: {left: number, top: number, right: number, bottom: number}) => void} onCrop told the chosen part
 *   in shares of the picture that is shown, or null for the whole source.
 */
export function wireCrop(onCrop) {
  const panel = byId("crop-panel");
  byId("crop").addEventListener("click", () => open(panel.hidden));
  byId("crop-reset").addEventListener("click", () => finish(onCrop, null));
  panel.addEventListener("submit", (event) => {
    event.preventDefault();
    finish(onCrop, chosen());
  });
  panel.addEventListener("input", showBox);
  wireDrag();
}

/** Offer cropping, or take the offer away. */
export function offerCrop(isOffered) {
  byId("crop").hidden = !isOffered;
  open(false);
}

function open(isOpen) {
  byId("crop-panel").hidden = !isOpen;
  byId("crop-box").hidden = !isOpen;
  byId("crop").setAttribute("aria-expanded", String(isOpen));
  if (!isOpen) return;
  for (const side of SIDES) byId(`crop-${side}`).value = 0;
  showBox();
}

function finish(onCrop, crop) {
  open(false);
  onCrop(crop);
}

/** The part that the numbers say; sides that cross are pushed apart. */
function chosen() {
  const [left, top, right, bottom] = SIDES.map((side) => (byId(`crop-${side}`).valueAsNumber || 0) / 100);
  return { left, top, right: Math.max(left + LEAST, 1 - right), bottom: Math.max(top + LEAST, 1 - bottom) };
}

function showBox() {
  const { left, top, right, bottom } = chosen();
  const { clientWidth: width, clientHeight: height, offsetLeft } = byId("image");
  Object.assign(byId("crop-box").style, {
    left: `${offsetLeft + left * width}px`, top: `${top * height}px`,
    width: `${(right - left) * width}px`, height: `${(bottom - top) * height}px`,
  });
}

function wireDrag() {
  const image = byId("image");
  let start = null;
  const shareOf = (event) => {
    const { left, top, width, height } = image.getBoundingClientRect();
    const within = (value) => Math.min(1, Math.max(0, value));
    return [within((event.clientX - left) / width), within((event.clientY - top) / height)];
  };
  image.addEventListener("pointerdown", (event) => {
    if (byId("crop-panel").hidden) return;
    start = shareOf(event);
    image.setPointerCapture(event.pointerId);
  });
  image.addEventListener("pointermove", (event) => {
    if (!start) return;
    const end = shareOf(event);
    const [low, high] = [0, 1].map((axis) => [Math.min(start[axis], end[axis]), Math.max(start[axis], end[axis])]);
    const cut = { left: low[0], top: high[0], right: 1 - low[1], bottom: 1 - high[1] };
    for (const side of SIDES) byId(`crop-${side}`).value = Math.min(90, Math.round(100 * cut[side]));
    showBox();
  });
  image.addEventListener("pointerup", () => {
    start = null;
  });
}
