"""One JSON line an event, and nothing in it that is a patient's or a secret."""

import json
import logging
import subprocess
import sys
from contextvars import copy_context
from pathlib import Path

import pytest

from server.errors import SettingsError
from server.log import JsonFormatter, configure_logging, session_name
from tests.server.live import HELLO, Live, beating, live_server, until


def line_of(record: logging.LogRecord) -> dict[str, object]:
    text = JsonFormatter().format(record)
    assert "\n" not in text
    line: dict[str, object] = json.loads(text)
    return line


def record_of(message: str, **extra: object) -> logging.LogRecord:
    logger = logging.Logger("server.test")
    return logger.makeRecord(logger.name, 30, "f.py", 1, message, (), None, extra=extra)


def test_a_line_says_when_how_grave_where_and_what() -> None:
    record = record_of("session begins", codec="jpeg", frames=3, _stamp_of_a_library=7)
    record.created = 1_700_000_000.25
    assert line_of(record) == {
        "time": "2023-11-14T22:13:20.250+00:00",
        "level": "WARNING",
        "logger": "server.test",
        "event": "session begins",
        "codec": "jpeg",
        "frames": 3,
    }


def test_a_line_names_the_session_that_its_task_works_for() -> None:
    def named() -> dict[str, object]:
        session_name.set("s_1")
        return line_of(record_of("x"))

    assert copy_context().run(named)["session"] == "s_1"
    assert "session" not in line_of(record_of("x"))


def test_line_breaks_and_quotes_cannot_forge_a_line() -> None:
    forged = 'a"\n{"level": "ERROR"}'
    assert line_of(record_of(forged, codec=forged))["codec"] == forged


def test_an_exception_is_told_in_the_same_line() -> None:
    record = record_of("x")
    try:
        raise ValueError("why")
    except ValueError:
        record.exc_info = sys.exc_info()
    assert "ValueError: why" in str(line_of(record)["exception"])


def test_configured_logging_writes_json_for_everybody_and_no_access_lines() -> None:
    script = """
import logging
from server.log import configure_logging
configure_logging("INFO")
logging.getLogger("server.app").info("ours")
logging.getLogger("server.app").debug("too fine")
logging.getLogger("uvicorn.error").info("chatter")
logging.getLogger("uvicorn.error").warning("theirs")
logging.getLogger("uvicorn.access").warning("GET /v1/clips/7")
"""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=root
    )
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["event"] for line in lines] == ["ours", "theirs"]
    assert done.stdout == ""


async def _play(live: Live, marker: str) -> str:
    """A session, a broken hello, a cut and a fence; what the client knew as secret."""
    async with live.talk() as talk:
        for seq in range(3):
            await talk.say(beating(seq))
            await talk.hear()
        token: str = talk.ready["resume"]
        talk.abort()
    await live.until_parked(talk.ready["session"])
    async with live.talk(resume=token) as talk:
        await talk.say(beating(3)[:-1])
        await talk.hear_all()
    async with live.socket() as talk:
        await talk.say({**HELLO, marker: marker, "view": marker})
        await talk.hear_all()
    await live.get(f"/v1/clips/{marker}?view={marker}")
    await live.assert_all_is_freed()
    return token


async def test_a_session_leaves_lines_of_events_without_pixels_tokens_or_frames(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "server")
    with live_server(tmp_path) as live:
        token = await _play(live, "Doe^Jane")
        await until(lambda: "session ends" in caplog.text)
    ours = [record for record in caplog.records if record.name.startswith("server.")]
    lines = [line_of(record) for record in ours]
    text = json.dumps(lines)
    assert "Doe" not in text
    assert token not in text
    others = ("server.app", "server.clips.store")
    events = [line["event"] for line in lines if line["logger"] not in others]
    assert events == ["session begins", "session parked", "session begins", "session ends"]
    told = [line for line in lines if line["level"] == "WARNING"]
    assert [line["code"] for line in told] == ["malformed_message", "malformed_message"]
    for line in lines:
        assert all(len(str(value)) < 100 for value in line.values())


def test_an_audit_file_that_cannot_be_written_to_is_refused_by_its_setting(tmp_path: Path) -> None:
    for file in (tmp_path, tmp_path / "nowhere" / "audit"):
        with pytest.raises(SettingsError, match="GDKVM_AUDIT_FILE"):
            configure_logging("INFO", file)


AUDITED = """
import logging, sys
from pathlib import Path
from server.log import configure_logging
where, full = Path(sys.argv[1]), Path("/dev/full")
log, aside = where / "audit", where / "aside"
configure_logging("INFO", log)
audit = logging.getLogger("server.audit")
audit.info("first")
log.rename(aside)
log.symlink_to(full)
for number in range(3000):
    audit.info("audit", extra={"number": number})
log.unlink()
audit.info("last")
where.rename(gone := where.with_name("gone"))
audit.info("beyond")
gone.rename(where)
audit.info("back")
"""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a file that is always full is Linux's")
def test_audit_lines_wait_for_room_and_for_their_folder_and_are_told_of_once(
    tmp_path: Path,
) -> None:
    root, where = Path(__file__).parents[2], tmp_path / "logs"
    where.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", AUDITED, where],
        capture_output=True, text=True, check=True, cwd=root,
    )  # fmt: skip
    before = [json.loads(line)["event"] for line in (where / "aside").read_text().splitlines()]
    kept = [json.loads(line) for line in (where / "audit").read_text().splitlines()]
    assert before == ["first"]
    assert [line.get("number") for line in kept[:3000]] == list(range(3000))
    assert [line["event"] for line in kept[3000:]] == ["last", "beyond", "back"]
    told = [json.loads(line) for line in done.stderr.splitlines()]
    assert len([line for line in told if line["logger"] == "server.audit"]) == 3004
    ours = [(line["level"], line.get("why")) for line in told if line["logger"] == "server.log"]
    assert ours == [
        ("ERROR", "No space left on device"),
        ("WARNING", None),
        ("ERROR", "No such file or directory"),
        ("WARNING", None),
    ]
