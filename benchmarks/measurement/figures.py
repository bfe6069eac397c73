"""Tables of figures from scored streams: what the report says in numbers."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from benchmarks.measurement.hearts import RHYTHMS
from benchmarks.measurement.plots import pooled

Row = dict[str, Any]
ANNOUNCE_MS = 300.0
LIVE_POINTS = 0.5


def summary(rows: Sequence[Row]) -> Row:
    """Timing, beats, EF and promises over some streams."""
    errors = np.array([r["ef_error"] for r in rows if r["ef_error"] is not None])
    live = np.array([r["live_minus_offline"] for r in rows if r["live_minus_offline"] is not None])
    delays = pooled(rows, "delay_ms")
    return {
        "streams": len(rows),
        "beats": sum(r["whole"] for r in rows),
        "missed_percent": _percent(sum(r["missed"] for r in rows), sum(r["whole"] for r in rows)),
        "invented_percent": _percent(
            sum(r["invented"] + r["twice"] for r in rows), sum(r["told"] for r in rows)
        ),
        "ed_mae_ms": _mean_size(pooled(rows, "ed_error_ms")),
        "es_mae_ms": _mean_size(pooled(rows, "es_error_ms")),
        "ed_bias_ms": _mean(pooled(rows, "ed_error_ms")),
        "es_bias_ms": _mean(pooled(rows, "es_error_ms")),
        "beat_ef_mae": _mean_size(pooled(rows, "beat_ef_error")),
        "ef_bias": _mean(errors),
        "ef_mae": _mean_size(errors),
        "measured": sum(r["state"] == "measured" for r in rows),
        "delay_median_ms": float(np.median(delays)) if len(delays) else None,
        "delay_p95_ms": float(np.percentile(delays, 95)) if len(delays) else None,
        "told_in_time_percent": _percent(int((delays <= ANNOUNCE_MS).sum()), len(delays)),
        "live_agrees_percent": _percent(int((np.abs(live) <= LIVE_POINTS).sum()), len(live)),
        "live_worst": float(np.abs(live).max()) if len(live) else None,
    }


def tables_of_streams(rows: Sequence[Row]) -> list[tuple[str, Row]]:
    """The same by rhythm, by frame times, by frame rate, by rate and by EF."""
    kept = [row for row in rows if row["promised"]]
    parts: list[tuple[str, list[Row]]] = [("all", kept)]
    parts += [(name, [r for r in kept if r["rhythm"] == name]) for name in RHYTHMS]
    for kind in ("even", "uneven", "dropped"):
        parts.append((f"{kind} times", [r for r in kept if r["times"] == kind]))
    for key, unit, edges in (
        ("fps", "frames/s", (15, 25, 50, 121)),
        ("rate_bpm", "a minute", (35, 60, 90, 120, 181)),
        ("ef_percent", "% EF", (15, 30, 45, 60, 76)),
    ):
        for low, high in pairwise(edges):
            part = [r for r in kept if low <= r[key] < high]
            parts.append((f"{low} to {high} {unit}", part))
    return [(name, summary(part)) for name, part in parts if part]


def beyond_promise(rows: Sequence[Row]) -> Row:
    """What is said of streams too slow for their heart rate."""
    slow = [r for r in rows if r["fps"] / (r["rate_bpm"] / 60) < 9]
    reasons = Counter(reason for r in slow if r["state"] != "measured" for reason in r["reasons"])
    return {
        "streams": len(slow),
        "measured": sum(r["state"] == "measured" for r in slow),
        "reasons": dict(reasons.most_common()),
    }


def inflation_table(rows: Sequence[Row]) -> list[Row]:
    """Mean error of single extreme frames and of what is told, by noise."""
    table = []
    for noise in sorted({row["noise"] for row in rows}):
        part = [row for row in rows if row["noise"] == noise]
        ours = np.array([row["our_error"] for row in part if row["our_error"] is not None])
        table.append(
            {
                "noise_percent": 100 * noise,
                "raw_bias": _mean(np.array([row["raw_error"] for row in part])),
                "our_bias": _mean(ours),
                "our_mae": _mean_size(ours),
                "measured": len(ours),
                "streams": len(part),
            }
        )
    return table


def _percent(part: int, whole: int) -> float | None:
    return 100.0 * part / whole if whole else None


def _mean(values: Any) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _mean_size(values: Any) -> float | None:
    return float(np.mean(np.abs(values))) if len(values) else None
