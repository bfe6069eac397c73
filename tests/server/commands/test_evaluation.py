import json
from pathlib import Path
from typing import Any

import pytest

import server.commands.evaluation
from server.commands.evaluation import run_evaluation
from server.commands.terminal import Terminal


def scores(**values: float | None) -> dict[str, Any]:
    ends = {k: None if v is None else [v - 0.5, v + 0.5] for k, v in values.items()}
    return {**values, "ci95": ends}


MASKS = scores(dice=0.9, iou=0.8, hd95_mm=3.25, asd_mm=None)
EF = scores(mae=4.125, rmse=5.0, r=None, bias=-0.5, beyond_15=0.0)
REPORT = {
    **{name: dict.fromkeys(("ed", "es", "all"), MASKS) for name in ("lv", "myocardium", "atrium")},
    "ef": {**EF, "ci95": {**EF["ci95"], "rmse": None}, "pairs": 1, "method": "of the test"},
    "patients": 1,
    "weights": {"name": "a", "version": "1", "sha256": "00"},
}


@pytest.fixture(autouse=True)
def _a_report_without_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def evaluate(data: Path, *, predictor: str, **_: Any) -> dict[str, Any]:
        assert (data, predictor) == (Path("data"), "loaded a")
        return REPORT

    def load(name: str, *, precision: str, **_: Any) -> str:
        assert precision == "int8"
        return f"loaded {name}"

    monkeypatch.setattr(server.commands.evaluation, "evaluate", evaluate)
    monkeypatch.setattr(server.commands.evaluation, "load_predictor", load)


def test_json_is_the_report_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    run_evaluation(Path("data"), "a", "int8", Terminal(as_json=True))
    said = capsys.readouterr()
    assert (json.loads(said.out), said.err) == (REPORT, "")


def test_people_read_every_score_with_its_interval_where_there_is_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    run_evaluation(Path("data"), "a", "int8", Terminal())
    said = capsys.readouterr().out
    assert said.count("0.900 (0.400 to 1.400)") == 9
    assert "4.12 (3.62 to 4.62)" in said
    assert "5.00 " in said
    assert "1 patient, a 1" in said


def test_a_page_is_written_where_it_is_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    written: list[tuple[Any, ...]] = []
    monkeypatch.setattr(
        server.commands.evaluation, "write_report", lambda *about: written.append(about)
    )
    page = tmp_path / "page.html"
    run_evaluation(Path("data"), "a", "int8", Terminal(), page)
    assert written == [(REPORT, Path("data"), "loaded a", page)]
    assert page.name in capsys.readouterr().out.replace("\n", "")
