"""How beating streams are scored by ``benchmarks.memory``, and the table of all variants."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

KINDS = ("black", "shadow", "haze", "speckle", "gain", "blur")


def dice(guess: NDArray[np.bool_], truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Dice over the last two axes."""
    both = (guess & truth).sum(axis=(-2, -1))
    return 2 * both / np.maximum(guess.sum(axis=(-2, -1)) + truth.sum(axis=(-2, -1)), 1)


def masked_mean(values_NT: NDArray[np.float64], keep_NT: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean over a patient's kept frames, NaN where there is none."""
    count = keep_NT.sum(axis=1)
    return np.where(count, (values_NT * keep_NT).sum(axis=1) / np.maximum(count, 1), np.nan)


def jitter(masks_NTHW: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean second difference of the area over its mean."""
    area_NT = masks_NTHW.sum(axis=(-2, -1)).astype(float)
    return np.abs(np.diff(area_NT, 2, axis=1)).mean(axis=1) / area_NT.mean(axis=1)


def ejection(masks: NDArray[np.bool_], truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """EF in percent by area and principal length, at the truth's largest and smallest frame."""
    area = truth.sum(axis=(-2, -1))
    found = []
    for n in range(len(masks)):
        volumes = [volume(masks[n, t]) for t in (area[n].argmax(), area[n].argmin())]
        found.append(100 * (volumes[0] - volumes[1]) / volumes[0])
    return np.array(found)


def volume(mask_HW: NDArray[np.bool_]) -> float:
    """Proportional to the volume: area squared over the length of the principal axis."""
    points = np.argwhere(mask_HW)
    if len(points) < 10:
        return float("nan")
    return float(len(points) ** 2 / np.sqrt(np.linalg.eigvalsh(np.cov(points.T))[-1]))


def table(out: Path) -> None:
    """All that is there as Markdown, means over seeds, and differences to the first row."""
    names = sorted({p.stem.split("-", 1)[1] for p in out.glob("*.npz")})
    columns = ("clean", "bad", *KINDS, "after", "lost", "jitter")
    print("| variant | seeds | " + " | ".join(columns) + " | EF MAE |")
    print("| --- " * (len(columns) + 3) + "|")
    for name in names:
        found = [dict(np.load(path)) for path in sorted(out.glob("*.npz")) if _name(path) == name]
        cells = []
        for column in columns:
            seeds = [float(np.nanmean(scores[column])) for scores in found]
            spread = f" ±{(max(seeds) - min(seeds)) / 2:.4f}" if len(seeds) > 1 else ""
            cells.append(f"{np.mean(seeds):.4f}{spread}")
        mae = np.mean([np.nanmean(np.abs(s["ef"] - s["ef_truth"])) for s in found])
        print(f"| {name} | {len(found)} | " + " | ".join(cells) + f" | {mae:.2f} |")
    if found:
        print(f"\njitter of the truth: {np.nanmean(found[0]['jitter_truth']):.4f}")


def _name(path: Path) -> str:
    return path.stem.split("-", 1)[1]
