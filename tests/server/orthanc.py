"""A real PACS, Orthanc, as a process of its own."""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.server.routes.asking import wait_until

PLUGINS = Path("/usr/share/orthanc/plugins")
TITLE = "ORTHANC"


@contextmanager
def orthanc_server(folder: Path) -> Iterator[httpx.Client]:
    """Run a PACS with its own folder and ports as long as the block lasts."""
    program = shutil.which("Orthanc")
    if program is None:
        pytest.skip("Orthanc is not installed")
    http, dicom = _free_port(), _free_port()
    settings = {
        "StorageDirectory": str(folder), "IndexDirectory": str(folder), "HttpPort": http,
        "DicomPort": dicom, "DicomAet": TITLE, "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False, "Plugins": [str(PLUGINS / "libOrthancDicomWeb.so")],
        "DicomModalities": {"storescu": ["STORESCU", "127.0.0.1", 1]},
    }  # fmt: skip
    if not PLUGINS.is_dir():
        del settings["Plugins"]
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with _process(program, folder), httpx.Client(base_url=f"http://127.0.0.1:{http}") as client:
        wait_until(lambda: _answers(client))
        client.headers["X-Dicom-Port"] = str(dicom)
        yield client


@contextmanager
def _process(program: str, folder: Path) -> Iterator[None]:
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, str(folder / "orthanc.json")], stdout=log, stderr=log)
        try:
            yield
        finally:
            process.terminate()
            process.wait(20)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/system").status_code == 200
    except httpx.TransportError:
        time.sleep(0.1)
        return False
