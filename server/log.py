"""One JSON line per event on standard error; the only place that configures logging."""

import json
import logging
import logging.config
from contextvars import ContextVar
from datetime import UTC, datetime

session_name: ContextVar[str | None] = ContextVar("session_name", default=None)
"""The public name of the session that the current task works for."""

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
        if (session := session_name.get()) is not None:
            line["session"] = session
        line.update({k: v for k, v in vars(record).items() if k not in _STANDARD})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure_logging(level: str) -> None:
    """Send everything, uvicorn's lines too, through one JSON handler.

    Access lines stay off: they hold paths and addresses, and metrics count requests.
    """
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"json": {"()": JsonFormatter}},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
            "root": {"handlers": ["stderr"], "level": level},
            "loggers": {
                "uvicorn": {"level": "WARNING" if level == "INFO" else level},
                "uvicorn.access": {"level": "ERROR"},
            },
        }
    )
