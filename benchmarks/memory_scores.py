"""How beating streams are scored by ``benchmarks.memory``, and the table of all variants."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

DRAWS = 2000
Scores = dict[str, NDArray[np.float64]]

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
    """All that is there as Markdown: means over seeds, and what ``full`` has beyond the others."""
    found = read(out)
    columns = ("clean", "bad", *KINDS, "after", "lost", "jitter")
    print("| variant | seeds | " + " | ".join(columns) + " | EF MAE |")
    print("| --- " * (len(columns) + 3) + "|")
    for name, runs in found.items():
        cells = []
        for column in columns:
            seeds = [float(np.nanmean(scores[column])) for scores in runs.values()]
            spread = f" ±{(max(seeds) - min(seeds)) / 2:.4f}" if len(seeds) > 1 else ""
            cells.append(f"{np.mean(seeds):.4f}{spread}")
        mae = np.mean([np.nanmean(np.abs(s["ef"] - s["ef_truth"])) for s in runs.values()])
        print(f"| {name} | {len(runs)} | " + " | ".join(cells) + f" | {mae:.2f} |")
    if found:
        scores = next(iter(next(iter(found.values())).values()))
        print(f"\njitter of the truth: {np.nanmean(scores['jitter_truth']):.4f}\n")
    for name, runs in found.items():
        shared = sorted(runs.keys() & found.get("full", {}).keys())
        if shared and name != "full":
            told = [
                f"{column} {difference([(found['full'][k], runs[k]) for k in shared], column)}"
                for column in ("clean", "bad", "black", "shadow", "lost")
            ]
            print(f"full less {name}: " + ", ".join(told))


def read(out: Path) -> dict[str, dict[int, Scores]]:
    """Every variant's scores by seed."""
    found: dict[str, dict[int, Scores]] = {}
    for path in sorted(out.glob("*.npz"), key=lambda path: path.stem.split("-", 1)[1]):
        seed, name = path.stem.split("-", 1)
        found.setdefault(name, {})[int(seed)] = dict(np.load(path))
    return found


def difference(pairs: list[tuple[Scores, Scores]], column: str) -> str:
    """Mean difference of pairs over seeds and patients, with a 95 % bootstrap over patients."""
    seeds_SN = np.array([one[column] - other[column] for one, other in pairs])
    # Some streams have no frame of a kind.
    each_N = np.nanmean(seeds_SN[:, np.isfinite(seeds_SN).any(axis=0)], axis=0)
    rng = np.random.default_rng(0)
    drawn = [np.mean(rng.choice(each_N, len(each_N))) for _ in range(DRAWS)]
    low, high = np.percentile(drawn, (2.5, 97.5))
    return f"{np.mean(each_N):+.4f} ({low:+.4f} to {high:+.4f})"
