"""Which decoder the frames of one DICOM clip get; the libraries' run in a decoder process."""

import threading
from contextlib import ExitStack
from typing import Any

from numpy.typing import NDArray

from model.pictures import (
    Decoder,
    DecodeStream,
    Layout,
    Stream,
    choose_compressed,
    read_stream,
    starts_a_stream,
)
from server.ingest.clip import IngestLimits
from server.ingest.layout import check_size
from server.ingest.sandbox import open_images


def choose_bounded(first: bytes, layout: Layout, limits: IngestLimits, stack: ExitStack) -> Decoder:
    """Make the decoder that the first frame's own bytes ask for.

    Args:
        first: the first frame's bytes.
        layout: what the header says.
        limits: bounds of the frames and of a decoder process.
        stack: closes the decoder process, where there is one.

    Raises:
        IngestError: the frame is no picture, one that is not read, or contradicts the header.
    """
    if starts_a_stream(first):
        stream = read_stream(first)
        check_size(stream.rows, stream.columns, limits)

    def start_process() -> DecodeStream:
        process = stack.enter_context(open_images(limits))
        lock = threading.Lock()

        def decode(stream: Stream) -> NDArray[Any]:
            with lock:
                return process.decode(stream)

        return decode

    return choose_compressed(first, layout, start_process)
