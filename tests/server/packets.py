"""Pictures as packets of video."""

from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np
from numpy.typing import NDArray

from server.protocol import Codec

VIDEO: dict[Codec, tuple[str, str, dict[str, str]]] = {
    "h264": ("libx264", "yuv420p", {"qp": "0", "tune": "zerolatency", "preset": "ultrafast"}),
    "hevc": (
        "libx265",
        "yuv420p",
        {"x265-params": "lossless=1:bframes=0:log-level=none:rc-lookahead=0:frame-threads=1"},
    ),
    "mjpeg": ("mjpeg", "yuvj420p", {"qmin": "1", "qmax": "1"}),
}


def encoded(
    codec: Codec, lumas: list[NDArray[np.uint8]], options: dict[str, str] | None = None
) -> Iterator[bytes]:
    """Video without loss, one packet a picture; grey levels of video range, 16 to 235."""
    encoder, pixels, lossless = VIDEO[codec]
    context = av.CodecContext.create(encoder, "w")
    assert isinstance(context, av.VideoCodecContext)
    rows, columns = lumas[0].shape
    context.width, context.height, context.pix_fmt = columns, rows, pixels
    context.time_base = Fraction(1, 30)
    context.options = lossless if options is None else options
    for number, luma in enumerate([*lumas, None]):
        frame = None
        if luma is not None:
            planes = np.vstack([luma, np.full((rows // 2, columns), 128, np.uint8)])
            frame = av.VideoFrame.from_ndarray(planes, format=pixels)
            frame.pts = number
        for packet in context.encode(frame):
            yield bytes(packet)
