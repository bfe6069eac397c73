"""Scores of weights on annotated stills."""

import os
from pathlib import Path
from typing import Any

from rich.table import Table

from model import STRUCTURES, counted, load_predictor
from model.training.evaluate import evaluate
from model.training.report import write_report
from server.commands.terminal import Terminal


def run_evaluation(
    data: Path,
    weights: str | None,
    precision: str | None,
    terminal: Terminal,
    page: Path | None = None,
) -> None:
    """Score a model and say how good it is, on a page too where one is asked for.

    Raises:
        EchoError: no such data, no such weights, or not at this precision.
    """
    predictor = load_predictor(weights, threads=os.cpu_count() or 1, precision=precision)
    with terminal.progress("Scoring") as bar:
        report = evaluate(data, predictor=predictor, progress=bar.show)
    if page is not None:
        write_report(report, data, predictor, page)
        terminal.say(f"Report: {page}")
    terminal.give(report)
    if not terminal.as_json:
        terminal.words.print(_masks_table(report))
        terminal.words.print(_ef_table(report["ef"]))
        named = report["weights"]
        terminal.say(
            f"{counted(report['patients'], 'patient')}, {named['name']} {named['version']}"
        )


def _masks_table(report: dict[str, Any]) -> Table:
    table = Table("structure", "phase", "Dice", "IoU", "HD95, mm", "ASD, mm", title="Masks")
    for name in STRUCTURES:
        for phase in ("ed", "es", "all"):
            scores = report[name][phase]
            figures = [_figure(scores, key, 3) for key in ("dice", "iou")]
            figures += [_figure(scores, key, 2) for key in ("hd95_mm", "asd_mm")]
            table.add_row(name, phase, *figures)
    return table


def _ef_table(scores: dict[str, Any]) -> Table:
    names = ("mae", "rmse", "r", "r2", "bias", "limit_low", "limit_high", "beyond_15")
    table = Table(*names, title="Ejection fraction, percent points")
    table.add_row(*(_figure(scores, name, 2) for name in names))
    return table


def _figure(scores: dict[str, Any], key: str, digits: int) -> str:
    """Write a score with its 95 % interval."""
    value = scores.get(key)
    if value is None:
        return "-"
    if scores["ci95"][key] is None:
        return f"{value:.{digits}f}"
    low, high = scores["ci95"][key]
    return f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
