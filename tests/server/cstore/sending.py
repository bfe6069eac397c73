"""How tests send to a server: by DCMTK's own programs, and by bytes that no program sends."""

import socket
import struct
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

from tests.server.ingest.making import tool
from tests.server.phantom import Served

LIMIT = 2_000_000
TITLE = "GDKVM"


@dataclass(frozen=True)
class Pacs:
    """A server, and the port that instances are sent to."""

    served: Served
    port: int

    def echo(self, *options: str) -> bool:
        """Whether C-ECHO is answered."""
        return self._run("echoscu", *options).returncode == 0

    def send(self, *words: str | Path, title: str = TITLE) -> str:
        """Send files by C-STORE; returns what the sender says."""
        return self._run("storescu", "-v", "-nh", *words, title=title).stdout

    def _run(
        self, program: str, *words: str | Path, title: str = TITLE
    ) -> "subprocess.CompletedProcess[str]":
        options = [word for word in words if not isinstance(word, Path)]
        files = [word for word in words if isinstance(word, Path)]
        return subprocess.run(
            [tool(program), *options, "-aec", title, "127.0.0.1", str(self.port), *files],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False,
        )  # fmt: skip

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def jobs(self) -> list[dict[str, object]]:
        found: list[dict[str, object]] = self.served.http.get("/v1/clips").json()
        return found

    def folders(self) -> list[Path]:
        return [path for path in self.served.parts.settings.clip_dir.iterdir() if path.is_dir()]


def associate(line: socket.socket, kind: str, title: str = TITLE) -> None:
    """Open an association for one SOP class in Implicit VR Little Endian.

    Source:
        DICOM PS3.8 section 9.3.2 (A-ASSOCIATE-RQ) and annex D.
    """

    def item(number: int, content: bytes) -> bytes:
        return struct.pack(">BBH", number, 0, len(content)) + content

    syntaxes = item(0x30, kind.encode()) + item(0x40, b"1.2.840.10008.1.2")
    user = item(0x51, struct.pack(">L", 16384)) + item(0x52, b"1.2.3")
    items = (
        item(0x10, b"1.2.840.10008.3.1.1.1")
        + item(0x20, b"\x01\0\0\0" + syntaxes)
        + item(0x50, user)
    )
    names = title.ljust(16).encode() + b"TEST".ljust(16)
    body = struct.pack(">HH", 1, 0) + names + bytes(32) + items
    line.sendall(struct.pack(">BBL", 1, 0, len(body)) + body)


def answer(line: socket.socket) -> int:
    """The type of the next unit: 2 accepts, 3 rejects, 7 aborts; 0 where the line is cut."""
    try:
        head = line.recv(6, socket.MSG_WAITALL)
    except ConnectionResetError:
        return 0
    if len(head) < 6:
        return 0
    line.recv(struct.unpack(">L", head[2:])[0], socket.MSG_WAITALL)
    return head[0]


def values(control: int, content: bytes) -> bytes:
    """A P-DATA-TF with one presentation data value of context 1 (PS3.8 section 9.3.5)."""
    value = bytes([1, control]) + content
    item = struct.pack(">L", len(value)) + value
    return struct.pack(">BBL", 4, 0, len(item)) + item


class Cutter:
    """A line to a server that breaks after so many bytes."""

    def __init__(self, port: int, after: int) -> None:
        self._inner = socket.create_connection(("127.0.0.1", port))
        self._door = socket.create_server(("127.0.0.1", 0))
        self._left = after
        self.port: int = self._door.getsockname()[1]
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        outer, _ = self._door.accept()
        back = threading.Thread(target=_copy, args=(self._inner, outer))
        back.start()
        while self._left > 0 and (piece := outer.recv(min(self._left, 4096))):
            self._inner.sendall(piece)
            self._left -= len(piece)
        for line in (self._inner, outer):
            line.shutdown(socket.SHUT_RDWR)
        back.join()
        for line in (self._inner, outer, self._door):
            line.close()

    def join(self) -> None:
        self._thread.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while piece := source.recv(4096):
            target.sendall(piece)
    except OSError:
        return
