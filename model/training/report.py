"""An evaluation as one HTML file that needs nothing else: tables, plots, the worst cases."""

import base64
import html
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from model.frame import STRUCTURES
from model.postprocess import to_source_labels
from model.predictor import Predictor
from model.training.evaluate import Annotated, read_annotated, segment_still
from model.words import counted

WORST = 6
PICTURE_SIDE = 384
FOUND_BGR, REFERENCE_BGR = (0, 200, 255), (255, 160, 60)
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
  color: #1a1a1a }
table { border-collapse: collapse; margin: 1rem 0 }
td, th { padding: .25rem .8rem; text-align: left; border-bottom: 1px solid #ddd }
figure { display: inline-block; margin: .5rem }
figcaption, footer { color: #555; font-size: .9em } img { max-width: 100% }
"""


def write_report(report: dict[str, Any], data: Path, predictor: Predictor, path: Path) -> None:
    """Write the document of ``evaluate`` for people.

    Args:
        report: what ``evaluate`` returned for ``data`` and ``predictor``.
        data: the annotated stills; the worst are drawn.
        predictor: draws them again.
        path: file to write.
    """
    named = report["weights"]
    title = f"{named['name']} {named['version']} on {counted(report['patients'], 'patient')}"
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        "<p>In brackets the central 95 % of a bootstrap over patients. For research use only.</p>",
        "<h2>Masks</h2>",
        _masks(report),
        "<p>The row-averaged Dice is the kind that was published with GDKVM: it counts empty image "
        "rows as right and compares with no other figure.</p>",
        "<h2>Ejection fraction, percent points</h2>",
        _ejection(report["ef"]),
        _plots(report["cases"]),
        "<h2>Groups of patients</h2>",
        _groups(report["subgroups"]),
        "<h2>The worst ventricles</h2>",
        "<p>Orange: found. Blue: reference.</p>",
        *_worst(report["cases"], data, predictor),
        f"<footer>SHA-256 of the weights: {html.escape(named['sha256'])}</footer>",
    ]
    head = f"<meta charset='utf-8'><title>{html.escape(title)}</title><style>{STYLE}</style>"
    text = f"<!doctype html><html lang='en'><head>{head}</head><body>{''.join(parts)}</body></html>"
    path.write_text(text, encoding="utf-8")


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    first = "".join(f"<th scope='col'>{html.escape(cell)}</th>" for cell in head)
    lines = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows)
    return f"<table><tr>{first}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _figure(scores: dict[str, Any], key: str, digits: int) -> str:
    value, ends = scores.get(key), scores.get("ci95", {}).get(key)
    if value is None:
        return "-"
    span = "" if ends is None else f" ({ends[0]:.{digits}f} to {ends[1]:.{digits}f})"
    return f"{value:.{digits}f}{span}"


def _masks(report: dict[str, Any]) -> str:
    digits = {"dice": 3, "iou": 3, "hd95_mm": 2, "asd_mm": 2, "pooled_dice": 3}
    digits["row_averaged_dice"] = 3
    rows = [
        [name, phase, *(_figure(report[name][phase], key, n) for key, n in digits.items())]
        for name in STRUCTURES
        for phase in ("ed", "es", "all")
    ]
    head = (
        "structure",
        "phase",
        "Dice",
        "IoU",
        "HD95, mm",
        "ASD, mm",
        "pooled Dice",
        "row-averaged",
    )
    return _table(head, rows)


def _ejection(ef: dict[str, Any]) -> str:
    keys = ("mae", "rmse", "r", "r2", "bias", "limit_low", "limit_high", "beyond_15")
    rules = {"single-plane disks": ef, "area-length": ef["area_length"]}
    rules |= {name: ef[name] for name in ("biplane", "stated") if name in ef}
    rows = [
        [name, str(scores["pairs"]), *(_figure(scores, key, 2) for key in keys)]
        for name, scores in rules.items()
    ]
    head = ("rule", "patients", "MAE", "RMSE", "r", "R2", "bias", "limit, low", "limit, high")
    return _table((*head, "share beyond 15"), rows)


def _groups(groups: dict[str, Any]) -> str:
    rows = [
        [
            name,
            str(group["patients"]),
            _figure(group["lv"], "dice", 3),
            _figure(group["lv"], "hd95_mm", 2),
            _figure(group["ef"], "mae", 2),
            _figure(group["ef"], "bias", 2),
        ]
        for name, group in groups.items()
    ]
    head = ("group", "patients", "LV Dice", "LV HD95, mm", "EF MAE", "EF bias")
    return _table(head, rows)


def _plots(cases: list[dict[str, Any]]) -> str:
    pairs = np.array(
        [
            (case["reference_ef"], case["ef"])
            for case in cases
            if case["ef"] is not None and case["reference_ef"] is not None
        ]
    ).reshape(-1, 2)
    if len(pairs) < 2:
        return ""
    reference, found = pairs.T
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    scatter, bland = figure.subplots(1, 2)
    ends = [min(pairs.min(), 20.0) - 2, max(pairs.max(), 75.0) + 2]
    scatter.plot(ends, ends, color="0.7", linewidth=1)
    scatter.plot(reference, found, "o", color="#0b5394", markersize=4)
    scatter.set(
        xlabel="reference EF, %", ylabel="found EF, %", xlim=ends, ylim=ends, aspect="equal"
    )
    error = found - reference
    half = 1.96 * error.std(ddof=1)
    bland.plot((found + reference) / 2, error, "o", color="#0b5394", markersize=4)
    for level, style in (
        (error.mean(), "-"),
        (error.mean() - half, "--"),
        (error.mean() + half, "--"),
    ):
        bland.axhline(level, color="0.4", linewidth=1, linestyle=style)
        bland.annotate(f"{level:.1f}", (1.0, level), xycoords=("axes fraction", "data"), fontsize=8)
    bland.set(xlabel="mean of both, %", ylabel="found - reference, points")
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    drawing = file.getvalue()
    caption = "Found against reference EF; Bland-Altman with bias and limits of agreement"
    return f"<figure>{drawing[drawing.index('<svg') :]}<figcaption>{caption}</figcaption></figure>"


def _worst(cases: list[dict[str, Any]], data: Path, predictor: Predictor) -> Iterable[str]:
    worst = [case["patient"] for case in cases[:WORST]]
    stills = [each for each in read_annotated(data) if each.view == "4CH"]
    dice = {case["patient"]: case["dice"] for case in cases}
    for name in worst:
        for still in (each for each in stills if each.patient == name):
            score = dice[name].get(still.phase)
            words = f"{name} {still.phase.upper()}, Dice {'-' if score is None else f'{score:.3f}'}"
            picture = base64.b64encode(draw_case(predictor, still)).decode()
            yield (
                f"<figure><img alt='{html.escape(words)}' src='data:image/png;base64,{picture}'>"
                f"<figcaption>{html.escape(words)}</figcaption></figure>"
            )


def draw_case(predictor: Predictor, still: Annotated) -> bytes:
    """The still as PNG with both outlines of the cavity."""
    found_HW = to_source_labels(segment_still(predictor, still)) == 1
    scale = PICTURE_SIDE / max(still.image_HW.shape)
    image = cv2.cvtColor(_resized(still.image_HW, scale), cv2.COLOR_GRAY2BGR)
    for area_HW, colour in ((still.labels_HW == 1, REFERENCE_BGR), (found_HW, FOUND_BGR)):
        area = _resized(area_HW.astype(np.uint8) * 255, scale)
        outlines, _ = cv2.findContours(
            (area > 127).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
        )
        cv2.drawContours(image, outlines, -1, colour, 1)
    return bytes(cv2.imencode(".png", image)[1])


def _resized(image: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    resized = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, np.uint8)
