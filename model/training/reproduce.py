"""Train ``gdkvm-live`` anew and say whether the result is that of the shipped weights.

    python -m model.training.reproduce DATA OUT

The stages are the files ``gdkvm-live-*.toml`` of the recipes, in order of name, each begun with the
weights of the one before, in bfloat16 where the processor has it. The result and the shipped
weights are scored on the same stills by the same code. Every stage goes on where it was stopped.
"""

import argparse
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from model.errors import EchoError
from model.predictor import Predictor, load_predictor
from model.training.config import TrainConfig
from model.training.evaluate import evaluate
from model.training.export import ship
from model.training.folder import SETTINGS
from model.training.loop import train
from model.training.processor import has_bfloat16
from model.training.watch import PRINTING, SILENT, Watch

RECIPES = Path(__file__).parent / "recipes"
NAME = "reproduced"

DICE_TOLERANCE = 0.010
"""By so much the ventricle's mean Dice may fall short at either phase.

Another seed, processor or version of torch moves it by a few thousandths; the 95 % interval of the
validation score is about twice as wide as this."""

EF_TOLERANCE = 1.5
"""By so many points the mean absolute error of EF may be larger."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One figure of both weights.

    Attributes:
        figure: its name.
        shipped: of the weights that are served.
        reproduced: of those just trained.
        allowed: how much worse it may be.
        higher_is_better: else lower is.
    """

    figure: str
    shipped: float
    reproduced: float
    allowed: float
    higher_is_better: bool

    @property
    def holds(self) -> bool:
        """Whether the new figure is no worse than allowed."""
        worse_by = self.shipped - self.reproduced
        return (worse_by if self.higher_is_better else -worse_by) <= self.allowed

    def __str__(self) -> str:
        word = "within" if self.holds else "OUTSIDE"
        return (
            f"{self.figure}: shipped {self.shipped:.4f}, reproduced {self.reproduced:.4f}, "
            f"{word} the tolerance of {self.allowed}"
        )


def train_stages(data: Path, out: Path, recipes: Path, watch: Watch = SILENT) -> Path:
    """Run every stage; returns the last checkpoint.

    Raises:
        FrameError: the data are not whole.
        WeightsError: a stage cannot be run.
    """
    checkpoint: Path | None = None
    for path in sorted(recipes.glob("gdkvm-live-*.toml")):
        settings = TrainConfig.read(path, str(data))
        settings = replace(settings, bf16=_computes_bf16(out / path.stem / SETTINGS))
        if checkpoint is not None:
            settings = replace(settings, start=str(checkpoint))
        checkpoint = train(settings, settings.shape(), out / path.stem, watch)
    assert checkpoint is not None, f"no recipes in {recipes}"
    return checkpoint


def _computes_bf16(saved: Path) -> bool:
    """As the stage was begun, else by what the processor has."""
    return TrainConfig.read(saved).bf16 if saved.is_file() else has_bfloat16()


def compare(shipped: dict[str, Any], reproduced: dict[str, Any]) -> list[Verdict]:
    """Hold two reports of ``evaluate`` against each other."""
    verdicts = [
        Verdict(
            f"LV Dice {phase.upper()}",
            shipped["lv"][phase]["dice"],
            reproduced["lv"][phase]["dice"],
            DICE_TOLERANCE,
            True,
        )
        for phase in ("ed", "es")
    ]
    errors = [report["ef"]["mae"] for report in (shipped, reproduced)]
    found = [float("inf") if error is None else float(error) for error in errors]
    return [*verdicts, Verdict("EF MAE", found[0], found[1], EF_TOLERANCE, False)]


def reproduce(
    data: Path,
    out: Path,
    *,
    recipes: Path = RECIPES,
    served: Predictor | None = None,
    watch: Watch = SILENT,
) -> list[Verdict]:
    """Train, export and compare with the weights that are served.

    Args:
        data: A4C PNG stills with ``index.csv``, which ``evaluate`` reads too.
        out: folder of the runs and of the new weights.
        recipes: folder of the stages.
        served: the weights compared with; None takes the shipped ones.
        watch: who is told how it goes.

    Raises:
        EchoError: the data are not whole, or a stage cannot be run.
    """
    checkpoint = train_stages(data, out, recipes, watch)
    ship(checkpoint, out / "weights", NAME, "0")
    served = served or load_predictor(threads=2)
    made = load_predictor(NAME, folder=out / "weights", threads=2)
    reports = [evaluate(data, predictor=predictor) for predictor in (served, made)]
    told = json.dumps(dict(zip(("shipped", NAME), reports, strict=True)), indent=1)
    (out / "scores.json").write_text(told + "\n", encoding="utf-8")
    return compare(*reports)


def main(arguments: list[str]) -> int:
    """0 where every figure is within the tolerance, 1 where one is not or the data are broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--recipes", type=Path, default=RECIPES)
    given = parser.parse_args(arguments)
    try:
        verdicts = reproduce(given.data, given.out, recipes=given.recipes, watch=PRINTING)
    except EchoError as error:
        sys.stderr.write(f"Not done: {error.message}\n")
        return 1
    sys.stdout.writelines(f"{verdict}\n" for verdict in verdicts)
    return 0 if all(verdict.holds for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
