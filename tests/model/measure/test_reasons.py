"""Every machine-readable reason has words on each side and a line in the handbook."""

import re
from pathlib import Path

import pytest

from model.measure.beatlog import NOT_CONFIRMED
from model.measure.ejection import EF_REASONS
from model.measure.quality import BEAT_GATES, FRAME_REASONS
from server.export.words import reason_in_words

ROOT = Path(__file__).resolve().parents[3]

CODES = sorted(
    {*FRAME_REASONS, *EF_REASONS, *(gate.reason for gate in BEAT_GATES), NOT_CONFIRMED}
    | {"colour_overlay", "view_not_apical"}
)


def web_words() -> dict[str, str]:
    text = (ROOT / "clients/web/words.js").read_text(encoding="utf-8")
    table = text[text.index("const REASONS") : text.index("};")]
    return dict(re.findall(r'^  (\w+): "(.+)",$', table, re.MULTILINE))


@pytest.mark.parametrize("code", CODES)
def test_a_reason_has_the_same_words_in_reports_and_on_the_page(code: str) -> None:
    assert reason_in_words(code) != code.replace("_", " ")
    assert web_words().get(code) == reason_in_words(code)


def test_the_handbook_explains_every_reason_and_no_other() -> None:
    page = (ROOT / "docs/measurement.md").read_text(encoding="utf-8")
    explained = re.findall(r"^\| `(\w+)`", page[page.index("## Reasons") :], re.MULTILINE)
    assert sorted(explained) == CODES


def test_reasons_that_an_ef_can_have_are_all_written_in_its_source() -> None:
    folder = ROOT / "model/measure"
    source = "".join(
        (folder / f"{name}.py").read_text(encoding="utf-8") for name in ("ejection", "tracker")
    )
    listed = source[: source.index("class EjectionFraction")]
    used = source.replace(listed, "")
    assert {code for code in EF_REASONS if f'"{code}"' not in used} == set()
