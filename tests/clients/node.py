"""Node runs the browser's modules: what needs no page is tested without one."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
WEB = ROOT / "clients" / "web"


def run_node(script: str, *arguments: str) -> Any:
    """Run a module that imports from the client and prints one JSON value."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not on the path")
    command = [node, "--input-type=module", "--eval", script, *arguments]
    done = subprocess.run(command, cwd=WEB, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
