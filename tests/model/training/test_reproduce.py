from pathlib import Path
from typing import Any

import pytest

from model.predictor import Predictor
from model.training import reproduce as module
from model.training.config import TrainConfig
from model.training.reproduce import RECIPES, compare, main, reproduce

SMALL = """
network_size = 32
widths = [4, 4, 8, 8]
steps = 1
batch = 2
"""


@pytest.fixture
def recipes(tmp_path: Path) -> Path:
    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / "gdkvm-live-1-frames.toml").write_text(SMALL)
    (folder / "gdkvm-live-2-clips.toml").write_text(SMALL + "clip_frames = 2\nfreeze_norm = true\n")
    (folder / "gdkvm-base.toml").write_text('network = "base"\n')
    return folder


def report(ed: float, es: float, mae: float | None) -> dict[str, Any]:
    return {"lv": {"ed": {"dice": ed}, "es": {"dice": es}}, "ef": {"mae": mae}}


@pytest.mark.parametrize(
    ("found", "holds"),
    [
        (report(0.95, 0.93, 5.0), [True, True, True]),
        (report(0.97, 0.96, 3.0), [True, True, True]),
        (report(0.941, 0.921, 6.4), [True, True, True]),
        (report(0.93, 0.93, 5.0), [False, True, True]),
        (report(0.95, 0.91, 5.0), [True, False, True]),
        (report(0.95, 0.93, 6.6), [True, True, False]),
        (report(0.95, 0.93, None), [True, True, False]),
    ],
)
def test_only_what_is_worse_than_the_tolerance_is_outside(
    found: dict[str, Any], holds: list[bool]
) -> None:
    verdicts = compare(report(0.95, 0.93, 5.0), found)
    assert [verdict.holds for verdict in verdicts] == holds
    assert ["OUTSIDE" in str(verdict) for verdict in verdicts] == [not each for each in holds]


def test_stages_follow_each_other_and_both_weights_are_scored(
    data: Path, recipes: Path, tmp_path: Path, tiny_predictor: Predictor
) -> None:
    out = tmp_path / "out"
    verdicts = reproduce(data, out, recipes=recipes, served=tiny_predictor)
    assert [verdict.figure for verdict in verdicts] == ["LV Dice ED", "LV Dice ES", "EF MAE"]
    second = TrainConfig.read(out / "gdkvm-live-2-clips" / "config.toml")
    assert second.start == str(out / "gdkvm-live-1-frames" / "checkpoint.pt")
    assert (out / "scores.json").is_file()
    assert (out / "weights" / "manifest.json").is_file()


def test_stages_go_on_in_the_precision_they_were_begun_in(
    monkeypatch: pytest.MonkeyPatch, data: Path, recipes: Path, tmp_path: Path
) -> None:
    for has_bfloat16, begun_with in [(True, True), (False, True)]:
        monkeypatch.setattr(module, "has_bfloat16", lambda found=has_bfloat16: found)
        checkpoint = module.train_stages(data, tmp_path / "out", recipes)
        assert TrainConfig.read(checkpoint.with_name("config.toml")).bf16 is begun_with


@pytest.mark.parametrize(("allowed", "code"), [(1.0, 0), (-1.0, 1)])
def test_the_exit_code_is_the_verdict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], allowed: float, code: int
) -> None:
    verdicts = [module.Verdict("LV Dice ED", 0.95, 0.9, allowed, True)]
    monkeypatch.setattr(module, "reproduce", lambda *_, **__: verdicts)
    assert main(["data", "out"]) == code
    assert "LV Dice ED: shipped 0.9500, reproduced 0.9000" in capsys.readouterr().out


def test_broken_data_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nowhere"), str(tmp_path / "out")]) == 1
    assert "nowhere is no folder" in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_can_be_read(path: Path) -> None:
    assert TrainConfig.read(path, "data").data == "data"
