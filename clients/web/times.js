/** When the frames of a clip are shown. */

/** How long a frame is shown where nobody knows. */
export const UNKNOWN_FRAME_MS = 1000 / 30;

/**
 * The times of a clip's frames as its file says them, null where it does not say them or they do not rise.
 *
 * @param {{time_ms: number|null}[]} frames of a clip's result.
 * @returns {number[]|null} milliseconds from the first frame on.
 */
export function knownTimesMs(frames) {
  const timesMs = frames.map(({ time_ms: timeMs }) => timeMs);
  const isRising = timesMs.every((timeMs, index) => timeMs !== null && (index === 0 || timeMs > timesMs[index - 1]));
  return isRising && timesMs.length > 1 ? timesMs : null;
}

/** How long a clip takes: its last frame is shown as long as the one before it. */
export function lapOf(timesMs) {
  const last = timesMs.at(-1);
  return last - timesMs[0] + (last - (timesMs.at(-2) ?? last - UNKNOWN_FRAME_MS));
}
