import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from server.commands.local import local_server
from server.commands.terminal import CommandError

CHATTY = """
import http.server, sys
class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        sys.stderr.write("x" * 1_000_000 + "\\n")
        self.send_response(200); self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[-1])), Ready).serve_forever()
"""


def test_a_server_that_does_not_start_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GDKVM_MAX_SESIONS", "3")
    with pytest.raises(CommandError, match="GDKVM_MAX_SESIONS"), local_server():
        pass


def test_a_server_may_say_as_much_as_it_likes_and_is_stopped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "chatty.py").write_text(CHATTY)
    started: list[subprocess.Popen[bytes]] = []

    def start(command: list[str], **options: Any) -> "subprocess.Popen[bytes]":
        chatty = [sys.executable, str(tmp_path / "chatty.py"), command[-1]]
        started.append(run(chatty, **options))
        return started[-1]

    run = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", start)
    with local_server() as address:
        assert address.startswith("http://127.0.0.1:")
    assert started[0].returncode is not None
