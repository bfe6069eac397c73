"""How often the interval of an EF holds the expert's EF, told on patients it was not fitted on.

Split conformal prediction: the score of a patient is its error over the standard deviation that
the interval is built from; the factor that the interval needs is a high quantile of the scores of
other patients.

Source:
    Lei et al. 2018, Distribution-free predictive inference for regression, JASA 113(523), sections
    2.2 (split) and 2.4 (leave one out); Papadopoulos et al. 2002 for scores scaled by a spread.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, isfinite, sqrt
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from benchmarks.measurement.clips import Beating
from model import Predictor, measure_frame
from model.training.evaluate import Annotated, read_annotated, reference_mask, segment_still

NOMINAL = 0.90
SPLITS = 2000


@dataclass(frozen=True, slots=True)
class Pair:
    """One patient's EF by the network and by the expert.

    Attributes:
        half: half width of the interval that the product gives.
    """

    name: str
    ef: float
    expert_ef: float
    half: float


def pairs_of_clips(clips: list[Beating]) -> list[Pair]:
    """EFs of beating clips against those that the experts' outlines have in the same beats."""
    found = []
    for clip in clips:
        ef = clip.told.ef
        if ef.percent is None or ef.interval is None or clip.row["true_ef"] is None:
            continue
        half = max(ef.interval[1] - ef.percent, ef.percent - ef.interval[0])
        found.append(Pair(clip.name, ef.percent, clip.row["true_ef"], half))
    return found


def pairs_of_stills(
    data: Path,
    predictor: Predictor,
    half_of: Callable[[float], float],
    show: Callable[[int, int], None],
) -> list[Pair]:
    """EFs of both stills of each patient, without any beat.

    Args:
        data: folder in the A4C PNG layout.
        predictor: the network.
        half_of: from the SD in points that soft outlines make, to the half width of one beat.
        show: told stills done and in all.
    """
    stills = read_annotated(data)
    volumes: dict[tuple[str, str], tuple[float, float, float]] = {}
    for done, still in enumerate(stills):
        volumes[still.patient, still.phase] = _volumes(still, predictor)
        show(done + 1, len(stills))
    found = []
    for name in sorted({still.patient for still in stills}):
        (edv, ed_soft, true_edv), (esv, es_soft, true_esv) = (
            volumes[name, phase] for phase in ("ed", "es")
        )
        soft = 100 * esv / edv * sqrt(ed_soft**2 + es_soft**2)
        if isfinite(soft):
            ef, expert = 100 * (1 - esv / edv), 100 * (1 - true_esv / true_edv)
            found.append(Pair(name, ef, expert, half_of(soft)))
    return found


def _volumes(still: Annotated, predictor: Predictor) -> tuple[float, float, float]:
    """Volume, its relative SD, and the volume of the expert's outline."""
    spacing = (still.mm_per_px, still.mm_per_px)
    lv = measure_frame(segment_still(predictor, still), spacing).lv
    expert = measure_frame(reference_mask(still), spacing).lv
    if lv is None or expert is None:
        return float("nan"), float("nan"), float("nan")
    return lv.volume_index, lv.volume_index_sd / lv.volume_index, expert.volume_index


def conformal_factor(scores_P: NDArray[np.float64], nominal: float = NOMINAL) -> float:
    """The factor that covers a further patient with at least the nominal probability."""
    rank = ceil((len(scores_P) + 1) * nominal)
    return float(np.sort(scores_P)[rank - 1]) if rank <= len(scores_P) else float("inf")


def report(pairs: list[Pair]) -> dict[str, Any]:
    """Coverage of the shipped interval, and of intervals fitted on other patients."""
    errors_P = np.array([pair.ef - pair.expert_ef for pair in pairs])
    halves_P = np.array([pair.half for pair in pairs])
    scores_P = np.abs(errors_P) / halves_P
    held, count = int((scores_P <= 1).sum()), len(pairs)
    others = [np.delete(scores_P, place) for place in range(count)]
    left_out = [score <= conformal_factor(o) for score, o in zip(scores_P, others, strict=True)]
    halves = np.random.default_rng(0)
    covered = []
    for _ in range(SPLITS):
        order = halves.permutation(count)
        fitted, tested = order[: count // 2], order[count // 2 :]
        covered.append(float((scores_P[tested] <= conformal_factor(scores_P[fitted])).mean()))
    return {
        "patients": count,
        "bias": float(errors_P.mean()),
        "mae": float(np.abs(errors_P).mean()),
        "sd": float(errors_P.std(ddof=1)),
        "r": float(np.corrcoef([p.ef for p in pairs], [p.expert_ef for p in pairs])[0, 1]),
        "mean_half_width": float(halves_P.mean()),
        "shipped": {
            "held": held,
            "coverage": held / count,
            "ci95": [float(beta.ppf(0.025, held, count - held + 1)),
                     float(beta.ppf(0.975, held + 1, count - held)) if held < count else 1.0],
        },
        "leave_one_out": {"held": int(sum(left_out)), "coverage": float(np.mean(left_out))},
        "split_halves": {
            "coverage": float(np.mean(covered)),
            "p5_p95": [float(each) for each in np.percentile(covered, (5, 95))],
        },
        "factor_all": conformal_factor(scores_P),
    }  # fmt: skip
