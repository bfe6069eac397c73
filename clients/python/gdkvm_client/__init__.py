"""Client of GDKVM Live: stream or upload echocardiograms, get masks and ejection fraction back.

For research use only.
"""

from gdkvm_client.async_clips import AsyncClips
from gdkvm_client.blocking import stream_blocking
from gdkvm_client.clips import Clips
from gdkvm_client.errors import (
    BadAnswerError,
    BusyError,
    ClipRefusedError,
    ConnectionLostError,
    GdkvmError,
    InputError,
    NotFinishedError,
    NotFoundError,
    ServerFaultError,
    SessionLostError,
    TooBigError,
    UnauthorizedError,
)
from gdkvm_client.masks import ContourMask, Mask, PngMask, RleMask
from gdkvm_client.messages import (
    Beat,
    Dropped,
    EjectionFraction,
    Frame,
    Hello,
    Quality,
    Ready,
    Result,
    Summary,
    Ventricle,
)
from gdkvm_client.results import ClipBeat, ClipFrame, ClipResult, Job
from gdkvm_client.stream import Event, StreamClient, stream

__all__ = [
    "AsyncClips",
    "BadAnswerError",
    "Beat",
    "BusyError",
    "ClipBeat",
    "ClipFrame",
    "ClipRefusedError",
    "ClipResult",
    "Clips",
    "ConnectionLostError",
    "ContourMask",
    "Dropped",
    "EjectionFraction",
    "Event",
    "Frame",
    "GdkvmError",
    "Hello",
    "InputError",
    "Job",
    "Mask",
    "NotFinishedError",
    "NotFoundError",
    "PngMask",
    "Quality",
    "Ready",
    "Result",
    "RleMask",
    "ServerFaultError",
    "SessionLostError",
    "StreamClient",
    "Summary",
    "TooBigError",
    "UnauthorizedError",
    "Ventricle",
    "stream",
    "stream_blocking",
]
