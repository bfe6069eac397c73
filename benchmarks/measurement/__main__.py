"""How far measurement can be trusted: one page and one document, made anew by one command.

    python -m benchmarks.measurement --data DIR --out build/measurement [--streams 360]

DIR is the folder of real files (``SOURCES.md`` lists them; the A4C stills lie in
``camus/a4c-256``). Writes ``report.html`` and ``report.json``. Needs the extra ``train``.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from math import hypot
from pathlib import Path
from typing import Any

from benchmarks.measurement import figures, plots
from benchmarks.measurement.clips import Beating, run_patients
from benchmarks.measurement.coverage import Pair, pairs_of_clips, pairs_of_stills, report
from benchmarks.measurement.page import image, page, section, table
from benchmarks.measurement.refusals import run_files
from benchmarks.measurement.streams import run_inflation, run_one_beat_clips, run_streams
from model import Predictor, load_predictor
from model.measure.ejection import BEAT_SD_POINTS, MODEL_SD_POINTS, WIDTH_PER_SD

STILLS = Path("camus/a4c-256")
COLUMNS: tuple[tuple[str, str], ...] = (
    ("streams", "streams"), ("beats", "true beats"), ("missed_percent", "missed, %"),
    ("invented_percent", "invented, %"), ("ed_mae_ms", "ED, MAE ms"),
    ("es_mae_ms", "ES, MAE ms"), ("beat_ef_mae", "a beat's EF, MAE"), ("ef_bias", "EF, bias"),
    ("ef_mae", "EF, MAE"), ("measured", "measured"), ("delay_p95_ms", "told after, 95th, ms"),
    ("told_in_time_percent", "told in 300 ms, %"), ("live_agrees_percent", "live = offline, %"),
)  # fmt: skip

Document = dict[str, Any]


def show(name: str) -> Callable[[int, int], None]:
    """A line of progress for a terminal, silent elsewhere."""

    def step(done: int, total: int) -> None:
        if sys.stderr.isatty() or done == total:
            print(
                f"\r{name}: {done} of {total}", end="\n" if done == total else "", file=sys.stderr
            )

    return step


def half_width(soft_points: float) -> float:
    """Half width that the product gives one beat."""
    return WIDTH_PER_SD * hypot(MODEL_SD_POINTS, soft_points, BEAT_SD_POINTS)


def simulated(count: int) -> tuple[Document, list[str]]:
    """Streams without images."""
    rows = run_streams(count, show("Simulated streams"))
    by_part = figures.tables_of_streams(rows)
    slow = figures.beyond_promise(rows)
    noisy = run_inflation(show("Noisy streams"))
    short = run_one_beat_clips(show("Short clips"))
    inflated = figures.inflation_table(noisy)
    kept = [row for row in rows if row["promised"]]
    document: Document = {
        "streams": dict(by_part), "too_slow": slow, "inflation": inflated,
        "short_clips": figures.summary(short),
    }  # fmt: skip
    body = table(
        ["", *(words for _, words in COLUMNS)],
        [[name, *(facts[key] for key, _ in COLUMNS)] for name, facts in by_part],
        frozenset(),
    )
    slow_words = ", ".join(f"{name} {n}" for name, n in slow["reasons"].items())
    parts = [
        section(
            "Simulated streams",
            "Ten seconds each: 35 to 180 beats a minute, 15 to 120 frames a second, EF 15 to 75 %, "
            "begun anywhere in a beat, 2 % of the EDV as noise on every frame. Uneven times vary "
            "by a quarter; of dropped ones a tenth is lost and gaps reach 100 ms. True beats are "
            "those wholly in the stream and not across a longer gap. 'Live' is the EF at the last "
            "frame before the end is known, 'offline' the clip's.",
            body, image(plots.timing(kept), "errors of ED and ES in ms; delays"),
            image(plots.agreement(kept), "EF told against true EF"),
        ),
        section(
            "Too few frames for the heart rate",
            f"{slow['streams']} streams of fewer than 9 frames a beat: {slow['measured']} were "
            f"given an EF. Reasons of the others: {slow_words}.",
        ),
        section(
            "Single extreme frames against what is told", "Streams of 3 s, EF 25, 45 and 65 %.",
            table(
                ["noise, % of EDV", "largest and smallest frame, bias", "told, bias", "told, MAE",
                 "measured", "streams"],
                [list(row.values()) for row in inflated], frozenset(),
            ),
            image(plots.inflation(noisy), "EF error by noise"),
        ),
        section(
            "Clips of 1.3 beats, begun anywhere",
            "Mostly no whole beat is in them. Every EF carries single_beat, and incomplete_beat "
            "where only one end of diastole was seen.",
            table(["measured", "of", "EF bias", "EF MAE"],
                  [[_count(short), len(short), document["short_clips"]["ef_bias"],
                    document["short_clips"]["ef_mae"]]], frozenset()),
        ),
    ]  # fmt: skip
    return document, parts


def _count(rows: list[Document]) -> int:
    return sum(row["state"] == "measured" for row in rows)


def patients(data: Path, predictor: Predictor) -> tuple[Document, list[str]]:
    """Real images with experts' outlines."""
    clips = run_patients(data / STILLS / "valid", predictor, show("Beating patients"))
    of_stills = pairs_of_stills(data / STILLS, predictor, half_width, show("Stills"))
    facts = figures.summary([clip.row for clip in clips])
    of_clips = pairs_of_clips(clips)
    coverage = {"stills": report(of_stills), "clips": report(of_clips)}
    parts = [
        section(
            "Beating validation patients",
            "The two annotated stills of each patient, carried over the beat by synthesis of "
            "motion, with a walk of the view and a change of gain; regular, fibrillation and "
            "ectopy. Truth: the experts' outlines, through the same method of disks.",
            table([words for _, words in COLUMNS],
                  [[facts[key] for key, _ in COLUMNS]], frozenset()),
            image(plots.examples(clips), "volume curves of three patients"),
        ),
        _coverage_section(coverage, of_stills, clips, of_clips),
    ]  # fmt: skip
    return {"clips": facts, "coverage": coverage}, parts


def _coverage_section(
    coverage: Document, of_stills: list[Pair], clips: list[Beating], of_clips: list[Pair]
) -> str:
    rows = []
    for name, found in coverage.items():
        low, high = found["shipped"]["ci95"]
        spread = " to ".join(f"{100 * each:.0f}" for each in found["split_halves"]["p5_p95"])
        rows.append(
            [name, found["patients"], found["bias"], found["mae"], found["sd"],
             f"{found['r']:.2f}", found["mean_half_width"],
             f"{100 * found['shipped']['coverage']:.0f} ({100 * low:.0f} to {100 * high:.0f})",
             100 * found["leave_one_out"]["coverage"],
             f"{100 * found['split_halves']['coverage']:.0f} ({spread})",
             f"{found['factor_all']:.2f}"]
        )  # fmt: skip
    withheld = [clip.name for clip in clips if clip.told.ef.state != "measured"]
    return section(
        "Does the 90 % interval hold the expert's EF?",
        "As shipped, with the 95 % interval of the share; with the factor fitted on all other "
        "patients and tried on the one left out; with the factor fitted on one half and tried on "
        "the other (mean of 2,000 splits, 5th and 95th percentile). The factor is what the shipped "
        f"half width would be multiplied with. Withheld clips: {len(withheld)}.",
        table(
            ["", "patients", "bias", "MAE", "SD", "r", "half width", "shipped, %",
             "leave one out, %", "halves, %", "factor"], rows, frozenset({7, 9}),
        ),
        image(plots.intervals(of_stills, coverage["stills"]["factor_all"]), "intervals, stills"),
        image(plots.intervals(of_clips, coverage["clips"]["factor_all"]), "intervals, clips"),
    )  # fmt: skip


def files(data: Path, predictor: Predictor) -> tuple[list[Document], list[str]]:
    """Real files, most of them no heart."""
    rows, studies = run_files(data, predictor, show("Files"))
    cells = []
    for row in rows:
        if "refused" in row:
            cells.append([row["file"], None, None, f"refused: {row['refused']}", row["why"]])
            continue
        given = "not given"
        if row["percent"] is not None:
            low, high = row["interval"]
            given = f"{row['percent']:.0f} % ({low:.0f} to {high:.0f})"
        cells.append(
            [row["file"], row["frames"], 100 * row["measurable"], given, ", ".join(row["reasons"])]
        )
    curves = [image(plots.course(name, study), name) for name, study in studies.items()]
    text = "An EF is given for the four-chamber clip alone; everything else is refused or withheld."
    if list(studies) != ["pydicom/examples_ybr_color.dcm"]:
        text = f"An EF is given for {', '.join(studies) or 'no file'}."
    head = ["file", "frames", "measurable, %", "EF", "reasons"]
    return rows, [section("Every real file", text, table(head, cells, frozenset({3, 4})), *curves)]


def main() -> None:
    """Run all of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("build/measurement"))
    parser.add_argument("--streams", type=int, default=360)
    options = parser.parse_args()
    predictor = load_predictor(threads=os.cpu_count() or 1)
    model = predictor.model
    document: Document = {"model": {"name": model.name, "version": model.version,
                                    "sha256": model.sha256}}  # fmt: skip
    document["simulated"], parts = simulated(options.streams)
    document["patients"], of_patients = patients(options.data, predictor)
    document["files"], of_files = files(options.data, predictor)
    title = f"Measurement, {model.name} {model.version}"
    options.out.mkdir(parents=True, exist_ok=True)
    about = "<p>For research. Made by <code>python -m benchmarks.measurement</code>.</p>"
    html = page(title, [about, *parts, *of_patients, *of_files])
    (options.out / "report.html").write_text(html, encoding="utf-8")
    (options.out / "report.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
    print(options.out / "report.html")


if __name__ == "__main__":
    main()
