"""A multipart body read part by part as it comes, never held as a whole.

Source:
    RFC 2046 section 5.1 (multipart), RFC 7578 (form-data), RFC 2387 (related).
"""

import re
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from server.errors import BadRequestError

_MOST_HEADER_BYTES = 16 << 10
_MOST_BOUNDARY_BYTES = 256
"""What the parser takes; RFC 2046 allows 70."""

_FILE_NAME = re.compile(r";\s*filename\*?\s*=", re.IGNORECASE)
"""Some clients add a star where a name is not ASCII, though RFC 7578 section 4.2 forbids it."""


@dataclass(slots=True)
class Part:
    """One part's headers; its body is read from ``Parts.body``."""

    headers: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str | None:
        """The form field that it is, None where it is none."""
        return self._disposition().get("name")

    @property
    def is_file(self) -> bool:
        """Whether it names a file, as a browser's upload does."""
        return _FILE_NAME.search(self.headers.get("content-disposition", "")) is not None

    @property
    def content_type(self) -> str:
        """What it claims to be, without parameters, empty where it claims nothing."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def _disposition(self) -> dict[str, str]:
        _, options = parse_options_header(self.headers.get("content-disposition", ""))
        return {key.decode("latin-1"): value.decode("latin-1") for key, value in options.items()}


class Parts:
    """Iterate over it for the parts; read each one's ``body`` before asking for the next."""

    def __init__(self, chunks: AsyncIterator[bytes], boundary: bytes) -> None:
        """Begin to read.

        Args:
            chunks: the body of the request.
            boundary: what the content type names.

        Raises:
            BadRequestError: no boundary, or one that is too long.
        """
        if not boundary:
            raise BadRequestError("a multipart body needs a boundary in its content type")
        if len(boundary) > _MOST_BOUNDARY_BYTES:
            raise BadRequestError(f"a boundary may have {_MOST_BOUNDARY_BYTES} bytes")
        self._chunks = chunks
        self._events: deque[Part | bytes | None] = deque()
        self._part = Part()
        self._name, self._value, self._header_bytes = b"", b"", 0
        self._is_whole = False
        self._parser = MultipartParser(boundary, callbacks={
            "on_part_begin": self._begin,
            "on_header_field": self._on_name,
            "on_header_value": self._on_value,
            "on_header_end": self._on_header,
            "on_headers_finished": lambda: self._events.append(self._part),
            "on_part_data": lambda data, start, end: self._events.append(data[start:end]),
            "on_part_end": lambda: self._events.append(None),
            "on_end": self._end,
        })  # fmt: skip

    def _begin(self) -> None:
        self._part, self._header_bytes = Part(), 0
        self._name = self._value = b""

    def _on_name(self, data: bytes, start: int, end: int) -> None:
        self._name += self._counted(data[start:end])

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += self._counted(data[start:end])

    def _counted(self, piece: bytes) -> bytes:
        self._header_bytes += len(piece)
        if self._header_bytes > _MOST_HEADER_BYTES:
            raise BadRequestError("the headers of a part are too long")
        return piece

    def _on_header(self) -> None:
        name = self._name.decode("latin-1").lower()
        self._part.headers[name] = self._value.decode("latin-1")
        self._name = self._value = b""

    def _end(self) -> None:
        self._is_whole = True

    async def _next(self) -> Part | bytes | None:
        """The next event.

        Raises:
            BadRequestError: the body is no multipart, or breaks off.
            StopAsyncIteration: there is none.
        """
        while not self._events:
            try:
                chunk = await anext(self._chunks)
            except StopAsyncIteration:
                if not self._is_whole:
                    raise BadRequestError("the multipart body breaks off") from None
                raise
            try:
                self._parser.write(chunk)
            except MultipartParseError as error:
                raise BadRequestError("not a multipart body of the boundary it names") from error
        return self._events.popleft()

    async def __aiter__(self) -> AsyncIterator[Part]:
        """Each part in turn; what was not read of the one before is passed over."""
        while True:
            try:
                event = await self._next()
            except StopAsyncIteration:
                return
            if isinstance(event, Part):
                yield event

    async def body(self) -> AsyncIterator[bytes]:
        """The body of the part that was last given."""
        while isinstance(event := await self._next(), bytes):
            yield event
