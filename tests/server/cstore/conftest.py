"""A server that a PACS can send to."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from server.settings import Settings
from tests.server.cstore.sending import LIMIT, Pacs
from tests.server.phantom import Served, phantom_clip, serving
from tests.server.routes.asking import COUNT

Start = Callable[..., Pacs]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Start]:
    """Starts servers, each with settings of its own, and stops them at the end."""
    pytest.importorskip("pynetdicom", reason="pynetdicom is not installed")
    open_servers: list[AbstractContextManager[Served]] = []

    def begin(**more: Any) -> Pacs:
        folder = tmp_path / f"clips-{len(open_servers)}"
        settings = Settings(clip_dir=folder, dicom_port=0, upload_max_bytes=LIMIT, **more)
        server = serving(monkeypatch, settings)
        served = server.__enter__()
        open_servers.append(server)
        assert served.parts.receiver is not None
        return Pacs(served, served.parts.receiver.port)

    yield begin
    for server in reversed(open_servers):
        server.__exit__(None, None, None)


@pytest.fixture
def pacs(start: Start) -> Pacs:
    """A server with the settings of the house."""
    return start()


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return phantom_clip(tmp_path / "phantom.dcm", COUNT)


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate of this machine's name, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout", key, "-out", chain],
        check=True, capture_output=True,
    )  # fmt: skip
    return chain, key
