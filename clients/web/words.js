/** Turns the server's machine-readable reasons and figures into words for people. */

const REASONS = {
  // of an ejection fraction
  no_frames: "no frame has been seen yet",
  no_complete_beat: "no beat is complete",
  too_few_frames: "the clip is too short",
  single_beat: "it rests on one beat only",
  too_few_beats: "it rests on too few beats",
  time_base_unknown: "the frame rate is unknown",
  no_spacing: "the size of a pixel is unknown",
  irregular_rhythm: "the rhythm is irregular",
  beats_disagree: "the beats disagree",
  interval_too_wide: "the figure is too uncertain",
  low_frame_rate: "the frame rate is low",
  incomplete_beat: "only a part of a beat is in the clip",
  times_not_rising: "some frame times do not rise",
  curve_interrupted: "the view was lost in between",
  picture_changed: "the picture became another one in between; the figure is of the last one",
  colour_overlay: "colour Doppler covers the image",
  view_not_apical: "it is not an apical four- or two-chamber view",
  // of a beat
  beat_not_confirmed: "the beat was not confirmed by what followed",
  frames_rejected: "too many of its frames could not be measured",
  ef_out_of_range: "the ejection fraction is implausible",
  axis_changed_too_much: "the long axis changed more than a heart's does",
  ef_unlike_area_change: "volume and area tell different stories",
  area_jumps: "the outline jumps from frame to frame",
  noisy_curve: "the volume curve is too noisy",
  frame_rate_too_low: "there are too few frames for so short a beat",
  heart_rate_out_of_range: "the heart rate is implausible",
  // of a frame
  axis_flipped: "the long axis flipped",
  no_left_ventricle: "no left ventricle is seen",
  view_uncertain: "it may be no apical view of a heart, or too little of one",
  ventricle_in_pieces: "the ventricle is in pieces",
  holes_in_ventricle: "the ventricle has holes",
  implausible_size: "the ventricle has an implausible size",
  implausible_shape: "the ventricle has an implausible shape",
  ragged_outline: "the outline is ragged",
  wall_missing: "the heart's wall is not seen all round",
  atrium_misplaced: "the atrium is not where it should be",
  implausible_wall: "the wall has an implausible thickness",
  unsure_outline: "the outline is unsure",
  ventricle_cut_off: "the ventricle is cut off by the edge of the image",
  annulus_not_seen: "the mitral annulus is not seen",
  axis_uncertain: "the long axis is uncertain",
  several_sectors: "the screen shows several images, of which one is measured",
  scale_changed: "the image changed its size, so that the size of a pixel is unknown",
  // of a file
  region_outside_image: "the declared region runs outside the image, so neither it nor its pixel size is used",
  several_regions: "several regions of tissue are declared; one that moves is used, of several the largest with a pixel size",
  spacing_unusable: "the declared pixel size is impossible",
  frame_rates_disagree: "two frame rates are declared",
  heart_rates_disagree: "the file tells another heart rate: the frame times may be wrong",
  time_base_implausible: "the declared frame rate is implausible",
  frame_count_missing: "the number of frames is missing",
  extra_pixel_data: "there are more frames than declared; the rest is left out",
  truncated_frames: "the file ends early; its whole frames are read",
  native_pixel_data_compressed: "it is declared uncompressed, but is not",
  chroma_not_subsampled: "its colours are stored otherwise than declared",
  pixels_made_square: "its pixels are not square; it is taken as players show it",
  pixels_not_square: "its video says that its pixels are not square; what the header says of them is used",
};

/** One reason in words; an unknown code is read out as it is. */
export function reasonInWords(code) {
  return REASONS[code] ?? code.replaceAll("_", " ");
}

/**
 * What is said of a beat that does not count towards the EF, an empty string of one that does.
 *
 * Whole beats count, or of two halves about one end of diastole that which empties further.
 */
export function whyUnused(beat, beats) {
  if (beat.reasons.length) return `not used: ${beat.reasons.map(reasonInWords).join("; ")}`;
  const sound = beats.filter(({ reasons }) => !reasons.length);
  if (!beat.is_complete && sound.some(({ is_complete }) => is_complete)) return "not used: whole beats are";
  const isLess = sound.some((other) => other.ed_seq === beat.ed_seq && other.ef_percent > beat.ef_percent);
  return isLess ? "not used: the other half is" : "";
}

/** What a server says of an error, as the sentence that it is. */
export function spoken(message) {
  return `${message[0].toUpperCase()}${message.slice(1)}${/[.!?]$/.test(message) ? "" : "."}`;
}

/** Several reasons as one sentence, or an empty string. */
export function sentence(reasons, start = "") {
  if (!reasons?.length) return "";
  const text = `${start}${reasons.map(reasonInWords).join("; ")}.`;
  return text[0].toUpperCase() + text.slice(1);
}

/** A number and what there is so many of: "1 frame", "2 frames". */
export function counted(count, noun) {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

/** A figure with its unit, or a dash where it is unknown. */
export function figure(value, digits, unit = "") {
  if (value === null || value === undefined) return "–";
  return `${value.toFixed(digits)}${unit ? ` ${unit}` : ""}`;
}

/**
 * What the ejection fraction says.
 *
 * @returns {{headline: string, interval: string, words: string}} the interval is empty where there is none.
 */
export function efInWords(ef) {
  if (ef.state === "measured") {
    const [low, high] = ef.interval ?? [null, null];
    const interval = low === null ? "" : `${low.toFixed(0)} to ${high.toFixed(0)} %`;
    const beats = `${counted(ef.beats, "beat")}${interval && ", 90 % interval"}`;
    const volumes = ef.edv_ml === null
      ? ""
      : `EDV ${ef.edv_ml.toFixed(0)} ml, ESV ${ef.esv_ml.toFixed(0)} ml. `;
    const reasons = ef.reasons.filter((code) => code !== "single_beat");
    const words = `From ${beats}. ${volumes}${sentence(reasons, "Note: ")}`;
    return { headline: `${ef.percent.toFixed(0)} %`, interval, words };
  }
  if (ef.state === "withheld") {
    return { headline: "withheld", interval: "", words: sentence(ef.reasons) || "The images do not allow one." };
  }
  return { headline: "pending", interval: "", words: sentence(ef.reasons) || "No beat is complete yet." };
}

/** What the quality gates say of a frame. */
export function qualityInWords(quality) {
  if (quality.state === "pass") return "Good enough to measure.";
  return sentence(quality.reasons, quality.state === "fail" ? "Not measured: " : "With care: ");
}
