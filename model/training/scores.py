"""What a set of scored masks amounts to: means, agreement of EF, intervals over patients."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, distance_transform_edt

from model.measure import Ventricle, biplane_volume_ml
from model.measure.volume import area_length_volume

RESAMPLES = 2000
METRICS = ("dice", "iou", "hd95_mm", "asd_mm", "row_averaged_dice")
EF_KEYS = ("mae", "rmse", "r", "bias", "beyond_15", "r2", "limit_low", "limit_high")
EF_CLASSES = (("below 40", 0.0, 40.0), ("40 to 50", 40.0, 50.0), ("50 and above", 50.0, 101.0))
"""Name, lowest and lowest that is too high, by the reference EF in percent."""

Row = dict[str, Any]
"""Scores of one still, see ``model.training.evaluate.score_still``."""

Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""One number a column, or one a name, from a table with one row a mask or patient."""

Volume = Callable[[Ventricle], float | None]


def overlap(guess_HW: NDArray[np.bool_], truth_HW: NDArray[np.bool_]) -> tuple[float, float]:
    """Dice and IoU of one mask; NaN where both are empty."""
    both = int((guess_HW & truth_HW).sum())
    either = int((guess_HW | truth_HW).sum())
    if either == 0:
        return float("nan"), float("nan")
    return 2.0 * both / (both + either), both / either


def surface_distances(
    guess_HW: NDArray[np.bool_], truth_HW: NDArray[np.bool_], mm_per_px: float
) -> tuple[float, float]:
    """HD95 and ASD in mm.

    The surface is the mask's outermost layer of pixels; HD95 is the larger of the two directed
    95th percentiles, ASD the mean of both directions' distances pooled. One empty mask costs the
    diagonal of the image, two empty ones are NaN.

    Source:
        Semantics of the authors' re-release of GDKVM, arXiv:2512.10252.
    """
    if not guess_HW.any() or not truth_HW.any():
        is_one_there = guess_HW.any() or truth_HW.any()
        worst = float(np.hypot(*truth_HW.shape)) * mm_per_px if is_one_there else float("nan")
        return worst, worst
    rim_guess = guess_HW & ~binary_erosion(guess_HW)
    rim_truth = truth_HW & ~binary_erosion(truth_HW)
    to_truth = distance_transform_edt(~rim_truth)[rim_guess] * mm_per_px
    to_guess = distance_transform_edt(~rim_guess)[rim_truth] * mm_per_px
    hd95 = max(np.percentile(to_truth, 95), np.percentile(to_guess, 95))
    return float(hd95), float(np.concatenate([to_truth, to_guess]).mean())


def row_averaged_dice(guess_HW: NDArray[np.bool_], truth_HW: NDArray[np.bool_]) -> float:
    """Dice of every image row apart, averaged; a row that is empty in both counts as 1.

    The published figures are of this kind. It is always flattered by the empty rows, grows when an
    image is padded, and compares with nothing else: the model card does not use it.

    Source:
        The released evaluation of GDKVM, arXiv:2512.10252.
    """
    both_H = (guess_HW & truth_HW).sum(axis=1)
    size_H = guess_HW.sum(axis=1) + truth_HW.sum(axis=1)
    return float(np.where(size_H > 0, 2 * both_H / np.maximum(size_H, 1), 1.0).mean())


def structure_scores(rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """Means and intervals of one structure at end diastole, end systole and both."""
    scores: dict[str, Any] = {}
    for phase in ("ed", "es", "all"):
        chosen = [
            row for row in rows if phase in ("all", row["phase"]) and np.isfinite(row[name]["dice"])
        ]
        patients = np.array([row["patient"] for row in chosen])
        table = np.array([[row[name][metric] for metric in METRICS] for row in chosen])
        scores[phase] = summary(patients, table, METRICS, lambda part: part.mean(axis=0))
        scores[phase]["pooled_dice"] = pooled_dice(chosen, name)
    return scores


def pooled_dice(rows: list[Row], name: str) -> float | None:
    """Dice of all masks' pixels together, None where there are none."""
    both, size = np.sum([row[name]["pixels"] for row in rows], axis=0) if rows else (0, 0)
    return _rounded(2.0 * both / size) if size else None


def ef_scores(rows: list[Row]) -> dict[str, Any]:
    """Agreement of EF from predicted masks with EF from reference masks by the same rule.

    Returns:
        Single-plane disks in the four-chamber view at the top; below, where the data allow it,
        ``area_length``, ``biplane`` and ``stated``: disks against the EF that the index states.
    """
    stills = {(row["patient"], row["view"], row["phase"]): row for row in rows}
    patients = list(dict.fromkeys(row["patient"] for row in rows))
    disks = {name: ejection_pair(stills, name, _disks) for name in patients}
    scores = _ef_summary(disks)
    scores["method"] = "single-plane disks, both from masks"
    area_length = {name: ejection_pair(stills, name, area_length_volume) for name in patients}
    scores["area_length"] = _ef_summary(area_length)
    if any(row["view"] == "2CH" for row in rows):
        biplane = {name: biplane_pair(stills, name) for name in patients}
        scores["biplane"] = _ef_summary(biplane)
    stated = {row["patient"]: row["stated_ef"] for row in rows if row["stated_ef"] is not None}
    if stated:
        pairs = {name: (disks[name][0], percent) for name, percent in stated.items()}
        scores["stated"] = _ef_summary(pairs)
    return scores


def _ef_summary(pairs: dict[str, tuple[float, float]]) -> dict[str, Any]:
    kept = {name: pair for name, pair in pairs.items() if np.isfinite(pair).all()}
    table = np.array(list(kept.values())).reshape(-1, 2)
    return summary(np.array(list(kept)), table, EF_KEYS, agreement) | {"pairs": len(kept)}


def _disks(ventricle: Ventricle) -> float:
    return ventricle.volume_index


def ejection_pair(
    stills: dict[tuple[str, str, str], Row], patient: str, volume: Volume
) -> tuple[float, float]:
    """EF in percent of one patient from both masks of the four-chamber view, and the reference's.

    Returns:
        NaN where a phase is missing or has no ventricle.
    """
    rows = [stills.get((patient, "4CH", phase)) for phase in ("ed", "es")]
    return _ejection(rows, "found", volume), _ejection(rows, "reference", volume)


def _ejection(rows: list[Row | None], side: str, volume: Volume) -> float:
    volumes = [None if row is None or row[side] is None else volume(row[side]) for row in rows]
    return _percent(*volumes)


def _percent(ed: float | None, es: float | None) -> float:
    return 100.0 * (ed - es) / ed if ed and es is not None else float("nan")


def biplane_pair(stills: dict[tuple[str, str, str], Row], patient: str) -> tuple[float, float]:
    """The same by biplane disks from both views."""
    found = []
    for side in ("found", "reference"):
        volumes = []
        for phase in ("ed", "es"):
            views = [stills.get((patient, view, phase)) for view in ("4CH", "2CH")]
            a4c, a2c = (None if row is None else row[side] for row in views)
            volumes.append(None if a4c is None or a2c is None else biplane_volume_ml(a4c, a2c))
        found.append(_percent(*volumes))
    return found[0], found[1]


def case_scores(rows: list[Row]) -> list[dict[str, Any]]:
    """One line a patient, the worst ventricle first."""
    stills = {(row["patient"], row["view"], row["phase"]): row for row in rows}
    cases = []
    for name in dict.fromkeys(row["patient"] for row in rows):
        dice = {
            phase: _rounded(stills[name, "4CH", phase]["lv"]["dice"])
            for phase in ("ed", "es")
            if (name, "4CH", phase) in stills
        }
        found, reference = (_rounded(ef) for ef in ejection_pair(stills, name, _disks))
        cases.append({"patient": name, "dice": dice, "ef": found, "reference_ef": reference})
    # A phase that neither annotator nor network sees has no Dice; a ventricle not found has 0.
    return sorted(
        cases, key=lambda case: min([d for d in case["dice"].values() if d is not None] or [0.0])
    )


def subgroup_scores(rows: list[Row]) -> dict[str, Any]:
    """Scores of patients alike: by class of the reference EF, and by image quality where stated."""
    reference = {case["patient"]: case["reference_ef"] for case in case_scores(rows)}
    groups: dict[str, set[str]] = {}
    for name, low, high in EF_CLASSES:
        inside = {p for p, ef in reference.items() if ef is not None and low <= ef < high}
        groups[f"EF {name}"] = inside
    for row in rows:
        if row["quality"]:
            groups.setdefault(f"quality {row['quality']}", set()).add(row["patient"])
    scores = {}
    for name, members in groups.items():
        chosen = [row for row in rows if row["patient"] in members]
        if chosen:
            lv, ef = structure_scores(chosen, "lv")["all"], ef_scores(chosen)
            scores[name] = {"patients": len(members), "lv": lv, "ef": ef}
    return scores


def summary(
    patients: NDArray[np.str_],
    table: NDArray[np.float64],
    keys: tuple[str, ...],
    statistic: Statistic,
) -> dict[str, Any]:
    """A statistic of a table with its 95 % intervals; None where there is nothing to tell."""
    if not len(table):
        return {**dict.fromkeys(keys), "ci95": dict.fromkeys(keys)}
    low, high = bootstrap(patients, table, statistic)
    scores: dict[str, Any] = {
        key: _rounded(value) for key, value in zip(keys, statistic(table), strict=True)
    }
    scores["ci95"] = {
        key: None if np.isnan(ends).any() else [_rounded(end) for end in ends]
        for key, ends in zip(keys, zip(low, high, strict=True), strict=True)
    }
    return scores


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 5)


def agreement(pairs: NDArray[np.float64]) -> NDArray[np.float64]:
    """The figures of ``EF_KEYS`` for pairs of prediction and reference.

    Bias is prediction - reference; R2 is that of the prediction itself, without a fitted line; the
    limits of agreement are the bias -+ 1.96 standard deviations.

    Source:
        Bland and Altman 1986, doi:10.1016/S0140-6736(86)90837-8 (limits of agreement).
    """
    error = pairs[:, 0] - pairs[:, 1]
    spread = pairs.std(axis=0)
    r = r2 = half = np.nan
    if len(pairs) > 1:
        half = 1.96 * float(error.std(ddof=1))
        if spread.min() > 0:
            r = float(np.asarray(np.corrcoef(pairs.T))[0, 1])
        if spread[1] > 0:
            r2 = float(1.0 - (error**2).mean() / spread[1] ** 2)
    return np.array(
        [
            np.abs(error).mean(),
            np.sqrt((error**2).mean()),
            r,
            error.mean(),
            (np.abs(error) > 15.0).mean(),
            r2,
            error.mean() - half,
            error.mean() + half,
        ]
    )


def bootstrap(
    patients: NDArray[np.str_],
    table: NDArray[np.float64],
    statistic: Statistic,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """95 % interval of a statistic by resampling patients with replacement.

    Returns:
        2.5th and 97.5th percentile of every entry of the statistic; NaN where no draw has one.
    """
    rng = np.random.default_rng(0)
    members = [np.flatnonzero(patients == name) for name in np.unique(patients)]
    draws = []
    for _ in range(RESAMPLES):
        chosen = rng.integers(0, len(members), len(members))
        draws.append(statistic(table[np.concatenate([members[k] for k in chosen])]))
    columns = [column[~np.isnan(column)] for column in np.array(draws).T]
    ends = [np.percentile(c, [2.5, 97.5]) if c.size else np.full(2, np.nan) for c in columns]
    return np.array(ends)[:, 0], np.array(ends)[:, 1]
