"""Made-up annotated stills in the A4C PNG layout."""

from pathlib import Path

import pytest

from tests.model.training.hearts import write_index, write_patient


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A fresh data set: two patients to train on and one to validate."""
    folder = tmp_path / "data"
    for name, seed in (("patient0001", 1), ("patient0002", 2)):
        write_patient(folder / "train", name, seed)
    write_patient(folder / "valid", "patient0003", 3)
    phases = [(3, "valid", "ED"), (3, "valid", "ES"), (1, "train", "ED"), (1, "train", "ES")]
    write_index(folder, [(split, f"patient000{n}", phase, "0.8") for n, split, phase in phases])
    return folder
