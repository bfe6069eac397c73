"""What a user installs and types: the wheel, the image, the commands and settings in the README."""

import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import threading
import tomllib
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from server.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The files of the wheel, built by the project's own build backend."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_installed_version_is_the_declared_one() -> None:
    assert metadata.version("gdkvm-live") == PROJECT["version"]


def test_the_newest_release_in_the_changelog_is_the_declared_one_or_unreleased() -> None:
    newest = re.search(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] in {"Unreleased", PROJECT["version"]}


def test_serving_on_a_cpu_needs_no_torch() -> None:
    names = {Requirement(line).name for line in PROJECT["dependencies"]}
    assert not names & {"torch", "onnx", "onnxruntime", "onnxruntime-gpu", "matplotlib"}


@pytest.mark.parametrize("folder", ["model", "server", "weights", "clients/web"])
def test_the_wheel_carries_every_file_that_serving_needs(
    wheel_names: set[str], folder: str
) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "--", folder], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()
    present = {name for name in tracked if (ROOT / name).is_file()}
    assert present
    assert present <= wheel_names


def test_the_wheel_carries_nothing_else(wheel_names: set[str]) -> None:
    roots = {name.split("/")[0] for name in wheel_names}
    metadata_folder = f"gdkvm_live-{PROJECT['version']}.dist-info"
    assert roots == {"model", "server", "weights", "clients", metadata_folder}
    assert not any(name.startswith("clients/python") for name in wheel_names)


def test_every_make_command_in_the_readme_exists() -> None:
    named = set(re.findall(r"\bmake ([a-z-]+)$|`make ([a-z-]+)`", README, re.MULTILINE))
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    assert {"serve", "test", "demo"} <= {first or second for first, second in named} <= targets


def test_the_makefile_offers_what_the_design_promises() -> None:
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    assert {"serve", "test", "install", "install-dev", "demo", "bench", "clean"} <= targets


def test_every_file_that_the_readme_links_exists() -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", README)
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_readme_lists_every_setting_with_its_default_and_meaning() -> None:
    rows = re.findall(r"^\| `(GDKVM_\w+)` \| (.*?) \| (.+?) \|$", README, re.MULTILINE)
    fields = Settings.model_fields.items()
    expected = [(f"GDKVM_{name.upper()}", field.description) for name, field in fields]
    assert [(name, meaning) for name, _, meaning in rows] == expected


def test_the_dockerfile_passes_its_linter() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    if not linter.exists():
        pytest.skip("hadolint is not installed in this environment")
    done = subprocess.run([linter, "Dockerfile"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_runs_as_a_user_and_checks_its_health() -> None:
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    runtime = lines[lines.index("FROM python AS runtime") :]
    assert "USER 10001" in runtime
    assert any(line.startswith("HEALTHCHECK") for line in runtime)
    assert any("/livez" in line for line in runtime)


@pytest.mark.parametrize("is_secure", [False, True])
def test_the_image_asks_for_its_health_as_the_server_speaks(
    tmp_path: Path, is_secure: bool
) -> None:
    class Live(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/livez" else 404)
            self.end_headers()

    (told,) = re.findall(r"(?m)^HEALTHCHECK .*\\\n    CMD (.+)$", (ROOT / "Dockerfile").read_text())
    _, *words = json.loads(told)
    environment = dict(os.environ)
    with HTTPServer(("127.0.0.1", 0), Live) as asked:
        if is_secure:
            if (openssl := shutil.which("openssl")) is None:
                pytest.skip("openssl is not on the path")
            cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
            subprocess.run(
                [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj",
                 "/CN=heart.example", "-keyout", key, "-out", cert],
                check=True, capture_output=True,
            )  # fmt: skip
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(cert, key)
            asked.socket = context.wrap_socket(asked.socket, server_side=True)
            environment["GDKVM_TLS_CERT_FILE"] = str(cert)
        environment["GDKVM_PORT"] = str(asked.server_port)
        thread = threading.Thread(target=asked.serve_forever)
        thread.start()
        try:
            subprocess.run([sys.executable, *words], env=environment, check=True)
        finally:
            asked.shutdown()
            thread.join()


def test_the_continuous_integration_script_is_valid_shell() -> None:
    subprocess.run(["bash", "-n", ".ci/run"], cwd=ROOT, check=True)
