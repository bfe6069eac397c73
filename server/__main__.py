"""The `gdkvm` command, also `python -m server`: its version is said before anything is loaded."""

import os
import sys
from contextlib import suppress
from importlib import import_module
from importlib.metadata import version

_STDOUT = 1


def main() -> None:
    """Say the version, or run the command that the arguments name."""
    if sys.argv[1:] == ["--version"]:
        with suppress(OSError):  # the whole command says what hinders it
            os.write(_STDOUT, f"{version_line()}\n".encode())
            return
    # By its name, since it takes a second to load.
    import_module("server.cli").main()


def version_line() -> str:
    """The name of the product and its version."""
    return f"GDKVM Live {version('gdkvm-live')}"


if __name__ == "__main__":
    main()
