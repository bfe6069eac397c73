"""A file read by position, with an end that no read crosses."""

import threading
from typing import BinaryIO


class Window:
    """A file of known length; reads by position and never past the end."""

    def __init__(self, file: BinaryIO) -> None:
        """Measure a seekable binary file."""
        self._file = file
        self._lock = threading.Lock()
        self.size = file.seek(0, 2)

    def read_at(self, offset: int, length: int) -> bytes:
        """Read up to ``length`` bytes; fewer come where the file ends."""
        wanted = max(0, min(length, self.size - offset))
        if wanted == 0:
            return b""
        with self._lock:
            self._file.seek(offset)
            return self._file.read(wanted)
