"""One JSON line per event on standard error; the only place that configures logging."""

import json
import logging
import logging.config
from collections import deque
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path

from server.errors import SettingsError

session_name: ContextVar[str | None] = ContextVar("session_name", default=None)
"""The public name of the session that the current task works for."""

request_name: ContextVar[str | None] = ContextVar("request_name", default=None)
"""The name of the request that the current task answers."""

key_name: ContextVar[str | None] = ContextVar("key_name", default=None)
"""The name of the API key that the current task works for."""

trace_id: ContextVar[str | None] = ContextVar("trace_id", default=None)
"""The trace, in hexadecimal, that the current task's work is told in."""

MOST_WAITING = 10_000
"""Lines of the audit log that wait for their file, some 4 MB; those before are lost to it."""

logger = logging.getLogger(__name__)

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


class JsonFormatter(logging.Formatter):
    """Write a record as one JSON line: time, level, logger, constant message, facts."""

    def format(self, record: logging.LogRecord) -> str:
        """As one line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "event": record.getMessage(),
        }
        names = {
            "request": request_name, "key": key_name, "session": session_name,
            "trace_id": trace_id,
        }  # fmt: skip
        line |= {name: told for name, each in names.items() if (told := each.get()) is not None}
        line.update(_facts(record))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _facts(record: logging.LogRecord) -> dict[str, object]:
    """What was said beside the message; libraries hang private fields on every record."""
    said = vars(record).items()
    return {name: fact for name, fact in said if name not in _STANDARD and name[0] != "_"}


class AuditFile(logging.Handler):
    """Appends lines to a file that may be moved away at any time.

    Lines that cannot be written, as on a full disk, wait and go before the next one; that is told
    once. No request suffers from it.
    """

    def __init__(self, filename: Path) -> None:
        super().__init__()
        self._path = filename
        self._waiting: deque[bytes] = deque(maxlen=MOST_WAITING)
        self._is_failing = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, after those that wait."""
        self._waiting.append(f"{self.format(record)}\n".encode())
        try:
            self._write()
        except OSError as error:
            if not self._is_failing:
                why = {"why": error.strerror}
                logger.error("the audit log cannot be written to its file; lines wait", extra=why)
            self._is_failing = True
        else:
            if self._is_failing:
                logger.warning("the audit log is written to its file again")
            self._is_failing = False

    def _write(self) -> None:
        with self._path.open("ab", buffering=0) as file:
            while self._waiting:
                rest = self._waiting[0][file.write(self._waiting[0]) :]
                if rest:
                    self._waiting[0] = rest
                else:
                    self._waiting.popleft()


def configure_logging(level: str, audit_file: Path | None = None) -> None:
    """Send everything, uvicorn's lines too, through one JSON handler.

    Access lines stay off: they hold paths and addresses, and metrics count requests.

    Args:
        level: least grave event that is written.
        audit_file: where the audit log goes too; it may be rotated by moving it away.

    Raises:
        SettingsError: that cannot be written to.
    """
    if audit_file is not None:
        try:
            audit_file.open("a").close()
        except OSError as error:
            raise SettingsError(
                f"GDKVM_AUDIT_FILE: {audit_file} cannot be written to ({error.strerror})"
            ) from error
    handlers: dict[str, dict[str, object]] = {
        "stderr": {"class": "logging.StreamHandler", "formatter": "json"}
    }
    if audit_file is not None:
        handlers["audit"] = {
            "()": AuditFile,
            "filename": audit_file,
            "formatter": "json",
        }
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"json": {"()": JsonFormatter}},
            "handlers": handlers,
            "root": {"handlers": ["stderr"], "level": level},
            "loggers": {
                "uvicorn": {"level": "WARNING" if level == "INFO" else level},
                "uvicorn.access": {"level": "ERROR"},
                # It tells identifiers and addresses; what matters is said by ours.
                "pynetdicom": {"level": "CRITICAL"},
                # Each batch that a collector does not take; that is said by ours, once.
                "opentelemetry.exporter": {"level": "CRITICAL"},
                "opentelemetry.sdk._shared_internal": {"level": "CRITICAL"},
                "server.audit": {
                    "level": "INFO",
                    "handlers": [name for name in handlers if name == "audit"],
                },
            },
        }
    )
