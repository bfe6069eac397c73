"""Every example of the client's README, run as it stands against a server."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from server.settings import Settings
from tests.server.phantom import Served, phantom_clip, picture, serving

ROOT = Path(__file__).parents[2]
README = (ROOT / "clients" / "python" / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
COUNT = 12

SAID = {
    "realtime=True": f"frame {COUNT - 1}: ",
    "stream_blocking": f"frames: {COUNT}, EF ",
    "StreamClient": f"{COUNT} ",
    "result.frames": f"{COUNT - 1} {(COUNT - 1) * 40.0}",
    "download": "EjectionFraction(state=",
    "AsyncClips": "withheld None\nwithheld None\n",
    "letter.txt": "(not_a_clip)",
}
"""What each example prints, by what only it has."""
PAIRS = list(zip(EXAMPLES, SAID.values(), strict=True))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    settings = Settings(clip_dir=tmp_path_factory.mktemp("clips"))
    with pytest.MonkeyPatch.context() as patch, serving(patch, settings) as served:
        yield served


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    np.save(folder / "pictures.npy", np.stack([picture(index) for index in range(COUNT)]))
    phantom_clip(folder / "clip.dcm", COUNT)
    (folder / "letter.txt").write_text("no clip")
    return folder


def test_every_example_is_known_here() -> None:
    for example, mark in zip(EXAMPLES, SAID, strict=True):
        assert mark in example


@pytest.mark.parametrize(("example", "said"), PAIRS, ids=list(SAID))
def test_an_example_runs_as_it_stands(
    served: Served, folder: Path, example: str, said: str
) -> None:
    program = example.replace("127.0.0.1:8000", f"127.0.0.1:{served.port()}")
    assert program != example
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT / "clients" / "python")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert said in done.stdout
