"""What a serving process does so that nobody is held up."""

import asyncio
import shutil
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

import server.app
from server.commands.serving import DrainingServer, check_certificate, warm_up
from server.errors import SettingsError
from server.settings import Settings
from tests.server.live import CountingBackend, counting_predictor, live_server

PROGRAM = """
import gc, sys, cv2
from server.commands.serving import SWITCH_S, hold_up_nobody
hold_up_nobody()
assert gc.get_freeze_count() > 10_000
assert not gc.collect()
assert sys.getswitchinterval() == SWITCH_S
assert cv2.getNumThreads() == 1
"""


def test_the_collector_passes_by_what_was_loaded_and_pictures_stay_on_their_thread() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)


def test_the_routes_are_set_up_before_the_first_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = counting_predictor(CountingBackend())
    monkeypatch.setattr(server.app, "load_predictor", lambda *_, **__: predictor)
    made = DrainingServer(
        Settings(port=0, clip_dir=tmp_path, snapshot_store=str(tmp_path / "s.sqlite"), threads=1)
    )
    answers: list[int] = []
    stack = made.app.build_middleware_stack()

    async def noted(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        async def seen(message) -> None:  # type: ignore[no-untyped-def]
            answers.extend([message["status"]] if "status" in message else [])
            await send(message)

        await stack(scope, receive, seen)

    async def warmed_up() -> None:
        # The application's own start and end, so that its files are closed.
        async with made.app.router.lifespan_context(made.app):
            await warm_up(noted)

    asyncio.run(warmed_up())
    assert answers == [200]


@pytest.mark.parametrize(
    ("request_line", "head", "is_taken"),
    [
        (b"GET /v1/models", b"X-Long: " + b"a" * (32 << 10), True),
        (b"GET /v1/models", b"\r\n".join(b"X-%d: b" % number for number in range(3000)), True),
        (b"GET /v1/models", b"X-Long: " + b"a" * (1 << 20), False),
        (b"GET /v1/models", b"\r\n".join(b"X-%d: b" % number for number in range(100_000)), False),
        (
            b"POST /v1/clips",
            b"Transfer-Encoding: chunked\r\n\r\n0\r\nX-Trailer: " + b"a" * (1 << 20),
            False,
        ),
    ],
)
def test_headers_have_an_end(
    tmp_path: Path, request_line: bytes, head: bytes, is_taken: bool
) -> None:
    with live_server(tmp_path) as live:
        heard = b""
        # A server that no longer reads may be heard as a cut.
        with socket.create_connection(("127.0.0.1", live.port), 60) as line, suppress(OSError):
            line.sendall(request_line + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n")
            line.sendall(head + b"\r\n\r\n")
            while piece := line.recv(4096):
                heard += piece
        assert heard.startswith(b"HTTP/1.1 20") == is_taken
        assert live.http.get("/v1/clips").json() == []


@pytest.mark.parametrize("held", [None, b"no certificate"])
def test_a_certificate_that_cannot_be_used_is_refused_by_its_setting(
    tmp_path: Path, held: bytes | None
) -> None:
    file = tmp_path / "cert.pem"
    if held is not None:
        file.write_bytes(held)
    with pytest.raises(SettingsError, match="GDKVM_TLS_CERT_FILE"):
        check_certificate(Settings(tls_cert_file=file, tls_key_file=file))


def test_a_key_under_a_password_is_refused_and_not_asked_for(tmp_path: Path) -> None:
    if (openssl := shutil.which("openssl")) is None:
        pytest.skip("openssl is not on the path")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-passout", "pass:secret", "-subj",
         "/CN=localhost", "-keyout", key, "-out", cert],
        check=True, capture_output=True,
    )  # fmt: skip
    with pytest.raises(SettingsError, match="GDKVM_TLS_KEY_FILE"):
        check_certificate(Settings(tls_cert_file=cert, tls_key_file=key))
    plain = tmp_path / "plain.pem"
    subprocess.run(
        [openssl, "rsa", "-in", key, "-passin", "pass:secret", "-out", plain],
        check=True, capture_output=True,
    )  # fmt: skip
    check_certificate(Settings(tls_cert_file=cert, tls_key_file=plain))
