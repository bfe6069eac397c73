"""Behind a real nginx with the configuration that is shipped: TLS, websocket, uploads, keys."""

import hashlib
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.server.live import HELLO, Live, Talk, beating, live_server, until

CONF = Path(__file__).parents[2] / "deploy" / "nginx" / "gdkvm.conf"
KEY = {"Authorization": "Bearer open"}


@dataclass(frozen=True)
class Proxied:
    """A server, and nginx before it."""

    live: Live
    port: int
    trust: ssl.SSLContext
    log: Path

    @property
    def address(self) -> str:
        return f"localhost:{self.port}"

    def ask(self) -> httpx.Client:
        return httpx.Client(base_url=f"https://{self.address}", verify=self.trust, headers=KEY)


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    for name in ("nginx", "openssl"):
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not on the path")
    folder = tmp_path_factory.mktemp("nginx")
    (folder / "keys").write_text(hashlib.sha256(b"open").hexdigest())
    with (
        live_server(folder / "clips", api_keys_file=folder / "keys") as live,
        nginx_before(live, folder) as proxied,
    ):
        yield proxied


@contextmanager
def nginx_before(live: Live, folder: Path) -> Iterator[Proxied]:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=DNS:localhost", "-keyout", folder / "key.pem", "-out",
         folder / "cert.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ours = CONF.read_text().replace("127.0.0.1:8000", f"127.0.0.1:{live.port}")
    ours = ours.replace("443 ssl", f"127.0.0.1:{port} ssl").replace("/etc/ssl/gdkvm", str(folder))
    ours = ours.replace("/var/log/nginx", str(folder))
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log {folder}/error.log;\n"
        f"events {{}}\nhttp {{\n{temporary}{ours}\n}}\n"
    )
    command: list[str | Path] = [
        "nginx",
        "-p",
        folder,
        "-e",
        folder / "error.log",
        "-c",
        folder / "nginx.conf",
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        try:
            trust = ssl.create_default_context(cafile=folder / "cert.pem")
            until_open(port, process)
            yield Proxied(live, port, trust, folder / "gdkvm.log")
        finally:
            process.terminate()


def until_open(port: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 20
    while True:
        assert process.poll() is None, process.stderr and process.stderr.read()
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


async def test_a_stream_passes_through(proxied: Proxied) -> None:
    url = f"wss://{proxied.address}/v1/stream"
    with pytest.raises(InvalidStatus, match="401"):
        await connect(url, ssl=proxied.trust)
    origin = {"Origin": f"https://{proxied.address}"}
    async with connect(url, ssl=proxied.trust, additional_headers={**KEY, **origin}) as socket_:
        talk = Talk(socket_)
        await talk.say(HELLO)
        assert (await talk.hear())["type"] == "ready"
        for seq in range(3):
            await talk.say(beating(seq))
            assert (await talk.hear())["seq"] == seq
        await talk.end()
    with pytest.raises(InvalidStatus, match="403"):
        await connect(
            url, ssl=proxied.trust, additional_headers={**KEY, "Origin": "https://evil.example"}
        )


async def test_a_browsers_ticket_passes_and_is_in_no_log(proxied: Proxied) -> None:
    with proxied.ask() as http:
        ticket = http.post("/v1/tickets").json()["ticket"]
    url = f"wss://{proxied.address}/v1/stream?ticket={ticket}"
    async with connect(url, ssl=proxied.trust) as socket_:
        await Talk(socket_).say(HELLO)
        assert (await Talk(socket_).hear())["type"] == "ready"
        await Talk(socket_).end()
    await until(lambda: "/v1/stream 101" in proxied.log.read_text())
    assert ticket not in proxied.log.read_text()


async def test_the_uid_of_a_study_is_in_no_log(proxied: Proxied) -> None:
    with proxied.ask() as http:
        answer = http.post("/dicom-web/studies/1.2.840.4711", content=b"none")
    assert answer.status_code == 415
    await until(lambda: "POST /dicom-web/studies/- 415" in proxied.log.read_text())
    assert "4711" not in proxied.log.read_text()


def test_an_upload_and_its_refusal_pass_through(proxied: Proxied) -> None:
    with proxied.ask() as http:
        answer = http.post("/v1/clips", content=bytes(3 << 20), params={"wait_s": 10})
        assert answer.status_code in (415, 202)
        assert answer.headers["strict-transport-security"].startswith("max-age=")
        name = answer.headers["x-request-id"]
        assert re.fullmatch("[0-9a-f]{32}", name), "nginx names the request"
        plain = http.get("/v1/clips", headers={"Authorization": ""})
        assert plain.status_code == 401


@pytest.mark.parametrize(("path", "limit"), [("clips", 512 << 20), ("studies", 4 << 30)])
def test_what_is_too_long_is_told_by_the_server_at_its_own_limit(
    proxied: Proxied, path: str, limit: int
) -> None:
    def answer_to(length: int, ending: bytes) -> bytes:
        with (
            socket.create_connection(("127.0.0.1", proxied.port), 20) as plain,
            proxied.trust.wrap_socket(plain, server_hostname="localhost") as line,
        ):
            line.sendall(
                f"POST /v1/{path} HTTP/1.1\r\nHost: {proxied.address}\r\nAuthorization: Bearer open"
                f"\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n".encode()
            )
            heard = b""
            while ending not in heard and (piece := line.recv(4096)):
                heard += piece
            return heard

    assert b"100 Continue" in answer_to(limit, b"\r\n\r\n")
    assert b"application/problem+json" in answer_to(limit + 1, b"too_large")
