"""The report's plots, each as a picture to put into the page."""

import base64
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmarks.measurement.clips import Beating
from benchmarks.measurement.coverage import Pair
from benchmarks.measurement.hearts import RHYTHMS
from server.study import Study

COLOURS = dict(zip(RHYTHMS, ("#3266a8", "#2f9e8f", "#c8553d", "#8a5fb0"), strict=True))
mpl.rcParams |= {
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "grid.color": "#e4e7ec", "axes.edgecolor": "#8a94a3", "font.size": 9, "axes.axisbelow": True,
}  # fmt: skip


def picture(figure: Figure) -> str:
    """A PNG as a data address."""
    file = BytesIO()
    figure.savefig(file, format="png", dpi=130, bbox_inches="tight")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _axes(columns: int, height: float = 3.0) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(10.0, height), layout="constrained")
    return figure, [figure.add_subplot(1, columns, place + 1) for place in range(columns)]


def pooled(rows: Sequence[dict[str, Any]], key: str) -> NDArray[np.float64]:
    """One list of all streams."""
    parts = [np.asarray(row[key], np.float64) for row in rows]
    return np.concatenate([np.empty(0), *parts])


def timing(rows: Sequence[dict[str, Any]]) -> str:
    """Errors of ED and ES, and how late a beat is told."""
    figure, axes = _axes(3)
    places = (
        ("ed_error_ms", "ED told less true, ms", np.arange(-120, 121, 10)),
        ("es_error_ms", "ES told less true, ms", np.arange(-120, 121, 10)),
        ("delay_ms", "told after the beat's end, ms", np.arange(-100, 501, 20)),
    )
    for ax, (key, label, bins) in zip(axes, places, strict=True):
        parts = [pooled([r for r in rows if r["rhythm"] == name], key) for name in RHYTHMS]
        clipped = [part.clip(bins[0], bins[-1]) for part in parts]
        ax.hist(
            clipped, list(bins), stacked=True, color=list(COLOURS.values()), label=list(RHYTHMS)
        )
        ax.set_xlabel(label)
    axes[0].set_ylabel("beats")
    axes[0].legend(frameon=False, fontsize=8)
    axes[2].axvline(300, color="#222", linestyle="--", linewidth=1)
    return picture(figure)


def agreement(rows: Sequence[dict[str, Any]]) -> str:
    """EF told against true EF, and the errors over rate and frame rate."""
    figure, axes = _axes(3, 3.2)
    known = [row for row in rows if row["ef_error"] is not None]
    for name in RHYTHMS:
        part = [row for row in known if row["rhythm"] == name]
        true, told = [r["true_ef"] for r in part], [r["ef"] for r in part]
        error = [r["ef_error"] for r in part]
        style: dict[str, Any] = {"s": 12, "color": COLOURS[name], "alpha": 0.7, "label": name}
        axes[0].scatter(true, told, **style)
        axes[1].scatter([r["rate_bpm"] for r in part], error, **style)
        axes[2].scatter([r["fps"] for r in part], error, **style)
    axes[0].plot([10, 80], [10, 80], color="#222", linewidth=1)
    axes[0].set(xlabel="true EF, %", ylabel="EF told, %")
    axes[1].set(xlabel="beats a minute", ylabel="EF told less true, points", ylim=(-10, 10))
    axes[2].set(xlabel="frames a second", ylim=(-10, 10))
    axes[0].legend(frameon=False, fontsize=8)
    return picture(figure)


def inflation(rows: Sequence[dict[str, Any]]) -> str:
    """Single extreme frames against the beat's own figures, by noise."""
    figure, (ax,) = _axes(1, 2.8)
    noises = sorted({row["noise"] for row in rows})
    for shift, key, colour, label in (
        (-0.17, "raw_error", "#c8553d", "largest and smallest frame"),
        (0.17, "our_error", "#3266a8", "as told"),
    ):
        boxes = [[r[key] for r in rows if r["noise"] == n and r[key] is not None] for n in noises]
        drawn = ax.boxplot(
            boxes, positions=np.arange(len(noises)) + shift, widths=0.3, patch_artist=True,
            manage_ticks=False, medianprops={"color": "#222"},
        )  # fmt: skip
        for box in drawn["boxes"]:
            box.set_facecolor(colour)
            box.set_label(label)
            label = "_"
    ax.axhline(0, color="#222", linewidth=1)
    ax.set_xticks(range(len(noises)), [f"{100 * noise:g} %" for noise in noises])
    ax.set(xlabel="noise of one frame's volume, SD over EDV", ylabel="EF less true, points")
    ax.legend(frameon=False)
    return picture(figure)


def intervals(pairs: Sequence[Pair], factor: float) -> str:
    """Each patient's interval and the expert's EF; and the errors over their mean."""
    figure, (left, right) = _axes(2, 3.6)
    ordered = sorted(pairs, key=lambda pair: pair.expert_ef)
    for place, pair in enumerate(ordered):
        held = abs(pair.ef - pair.expert_ef) <= pair.half
        colour = "#3266a8" if held else "#c8553d"
        left.plot([place] * 2, [pair.ef - pair.half, pair.ef + pair.half], color=colour, alpha=0.5)
        left.plot(place, pair.ef, "o", color=colour, markersize=3)
        left.plot(place, pair.expert_ef, "_", color="#222", markersize=6)
    left.set(xlabel="patients, by the expert's EF (dashes)", ylabel="EF, %")
    means = [(pair.ef + pair.expert_ef) / 2 for pair in pairs]
    errors = np.array([pair.ef - pair.expert_ef for pair in pairs])
    right.scatter(means, errors, s=14, color="#3266a8")
    middle, spread = errors.mean(), 1.96 * errors.std(ddof=1)
    for level, style in ((middle, "-"), (middle - spread, "--"), (middle + spread, "--")):
        right.axhline(level, color="#222", linewidth=1, linestyle=style)
    right.set(xlabel="mean of both EFs, %", ylabel="network less expert, points")
    right.set_title(f"bias {middle:+.1f}, limits ±{spread:.1f}; factor {factor:.2f}", fontsize=9)
    return picture(figure)


def course(name: str, study: Study) -> str:
    """A file's volume curve with its beats."""
    figure, (ax,) = _axes(1, 2.6)
    frames = study.findings.frames
    times = [f.seq if f.time_us is None else f.time_us / 1e6 for f in frames]
    volumes = [np.nan if f.reading.lv is None else f.reading.lv.volume_index for f in frames]
    ax.plot(times, np.array(volumes) / np.nanmax(volumes), ".-", color="#3266a8")
    place = {frame.seq: index for index, frame in enumerate(frames)}
    for beat in study.findings.beats:
        for seq, label in ((beat.ed_seq, "ED"), (beat.es_seq, "ES")):
            at = place[seq]
            height = volumes[at] / np.nanmax(volumes)
            ax.annotate(label, (times[at], height), (0, 9), textcoords="offset points", ha="center")
            ax.plot(times[at], height, "o", color="#c8553d")
    ef = study.findings.ef
    words = "" if ef.interval is None else f", {ef.interval[0]:.0f} to {ef.interval[1]:.0f} %"
    ax.set(xlabel="s", ylabel="volume over its largest", ylim=(0, 1.15))
    ax.set_title(f"{name}: EF {ef.percent:.0f} %{words}", fontsize=9)
    return picture(figure)


def examples(clips: Sequence[Beating]) -> str:
    """Volume curves of the patients whose EF is farthest off, and of one in the middle."""
    known = [clip for clip in clips if clip.row["ef_error"] is not None]
    ordered = sorted(known, key=lambda clip: clip.row["ef_error"])
    chosen = [ordered[0], ordered[len(ordered) // 2], ordered[-1]]
    figure, axes = _axes(3, 2.6)
    for ax, clip in zip(axes, chosen, strict=True):
        ax.plot(clip.times_ms_T / 1000, clip.volumes_T / np.nanmax(clip.volumes_T), linewidth=1)
        for beat in clip.told.beats:
            for at in (beat.ed_time_ms, beat.es_time_ms):
                ax.axvline((at or 0.0) / 1000, color="#c8553d", linewidth=0.6)
        ax.set_title(
            f"{clip.name}, {clip.row['rhythm']}: {clip.row['ef']:.0f} %, "
            f"true {clip.row['true_ef']:.0f} %",
            fontsize=9,
        )
        ax.set(xlabel="s", ylim=(0, 1.05))
    return picture(figure)
