"""Other people's programs that read what is written here."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

from pydicom import Dataset

from tests.server.ingest.making import tool

ANONYMOUS = ("needed to build DICOMDIR - Study", "Retired Person Name form")
"""What dciodvfy may warn of where the patient was taken out.

Study date, time and ID are empty on purpose, and a pseudonym is no family name with a given one.
"""


def assert_valid(path: Path, accepted: tuple[str, ...] = ()) -> None:
    """Let dciodvfy check an object against its definition: no error, and no other warning."""
    done = subprocess.run(
        [tool("dciodvfy"), str(path)], capture_output=True, text=True, check=False
    )
    lines = (done.stdout + done.stderr).splitlines()
    said = [line for line in lines if line.startswith(("Error", "Warning", "Abort"))]
    assert [line for line in said if not any(words in line for words in accepted)] == []


def dump_report(path: Path) -> str:
    """The tree of a structured report, as DCMTK reads it."""
    done = subprocess.run([tool("dsrdump"), str(path)], capture_output=True, text=True, check=True)
    assert "E: " not in done.stderr
    return done.stdout


def items_of(content: Dataset) -> Iterator[Dataset]:
    """Every content item below one, in order."""
    for item in content.get("ContentSequence", []):
        yield item
        yield from items_of(item)


def name_of(item: Dataset) -> str:
    names = item.get("ConceptNameCodeSequence", [])
    return str(names[0].CodeMeaning) if names else ""
