"""What is said over the websocket: typed values, and how they are read and written.

Fields that this version does not know are ignored, so that a newer server is understood.
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import orjson
from numpy.typing import NDArray

from gdkvm_client.errors import BadAnswerError, GdkvmError, InputError, error_of
from gdkvm_client.masks import Mask, parse_mask

SUBPROTOCOL = "gdkvm.v1"

Codec = Literal["gray8", "rgb24", "jpeg", "png", "h264", "hevc", "mjpeg"]
MaskEncoding = Literal["rle", "png", "contour", "none"]
Policy = Literal["latest", "every"]

_CODECS: tuple[Codec, ...] = ("gray8", "rgb24", "jpeg", "png", "h264", "hevc", "mjpeg")
_HEADER = struct.Struct("<4sBBHQqII")
_MAGIC, _VERSION = b"GDKF", 1
_UNKNOWN_TIME_US = -(2**63)


@dataclass(frozen=True, slots=True)
class Hello:
    """What will be sent, and how it shall be answered.

    Attributes:
        size: rows and columns of every frame.
        codec: of every payload.
        view: "A4C", "A2C" or None.
        spacing_mm: size of a pixel along rows and columns; None: no cm and no ml.
        fps: nominal frame rate, None where unknown.
        region: top, left, height and width of the sector; None: the server finds it.
        mask_encoding: how masks are written.
        policy: "latest" replaces a waiting frame by a newer one, "every" loses none.
        model: name of the model, None for the server's own choice.
    """

    size: tuple[int, int]
    codec: Codec = "gray8"
    view: str | None = None
    spacing_mm: tuple[float, float] | None = None
    fps: float | None = None
    region: tuple[int, int, int, int] | None = None
    mask_encoding: MaskEncoding = "rle"
    policy: Policy = "every"
    model: str | None = None

    def to_json(self, resume: str | None = None) -> str:
        """As the first message of a socket; ``resume`` is the token of a session to go on with."""
        return json.dumps({"type": "hello", **asdict(self), "resume": resume})


BYE = json.dumps({"type": "bye"})


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One frame to send.

    Attributes:
        seq: rising within a session; gaps are allowed.
        time_us: acquisition time in microseconds from any origin, None where unknown.
        payload: encoded as ``Hello.codec`` says.
    """

    seq: int
    time_us: int | None
    payload: bytes

    @classmethod
    def of_pixels(cls, seq: int, time_us: int | None, pixels_HW: NDArray[np.uint8]) -> "Frame":
        """Take a grey image, for the codec gray8.

        Raises:
            InputError: not a two-dimensional uint8 image.
        """
        if pixels_HW.ndim != 2 or pixels_HW.dtype != np.uint8:
            shape = f"{pixels_HW.dtype} {pixels_HW.shape}"
            raise InputError("bad_frame", f"gray8 is a 2-D uint8 image, got {shape}")
        return cls(seq, time_us, pixels_HW.tobytes())

    def to_bytes(self, codec: Codec) -> bytes:
        """As one binary message: a header of 32 bytes, little-endian, and the payload."""
        time_us = _UNKNOWN_TIME_US if self.time_us is None else self.time_us
        length = len(self.payload)
        header = (_MAGIC, _VERSION, _CODECS.index(codec), 0, self.seq, time_us, length, 0)
        return _HEADER.pack(*header) + self.payload


@dataclass(frozen=True, slots=True)
class Model:
    """Which network answers.

    Attributes:
        sha256: of the exact weights.
        precision: of the arithmetic, None where the server does not tell.
    """

    name: str
    version: str
    sha256: str
    precision: str | None = None


@dataclass(frozen=True, slots=True)
class Ready:
    """The session is open.

    Attributes:
        session: public name, for logs on both sides.
        resume: secret that resumes the session after a cut.
        resume_within_s: how long a cut session is kept.
        resumed: whether an earlier session goes on.
        last_seq: the last frame answered, None in a new session.
        credits: unanswered frames allowed under policy every.
        network_size: side of the network's input in pixels.
        structures: label i + 1 of a label map is ``structures[i]``.
    """

    session: str
    resume: str
    resume_within_s: float
    resumed: bool
    last_seq: int | None
    credits: int
    policy: str
    mask_encoding: str
    model: Model
    network_size: int
    structures: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StagesMs:
    """Where a frame's time went, in milliseconds."""

    queue: float
    decode: float
    infer: float
    measure: float
    total: float


@dataclass(frozen=True, slots=True)
class Ventricle:
    """The left ventricle of one frame; lengths and volumes are None without pixel spacing."""

    area_px: float
    area_cm2: float | None
    length_cm: float | None
    volume_ml: float | None


@dataclass(frozen=True, slots=True)
class Quality:
    """Whether a frame may be measured ("pass", "warn", "fail"), and what speaks against it."""

    state: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EjectionFraction:
    """The ejection fraction so far, 0 to 100 percent, or why there is none.

    Attributes:
        state: "pending" before a complete beat, "measured", or "withheld".
        interval: (low, high) percent, the central 90 %.
        reasons: warnings when measured, else what is missing or wrong.
    """

    state: str
    percent: float | None
    interval: tuple[float, float] | None
    method: str
    beats: int
    heart_rate_bpm: float | None
    edv_ml: float | None
    esv_ml: float | None
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """The answer to one frame.

    Attributes:
        mask: None under mask encoding none.
        areas_px: of every structure, in pixels of the frame as sent.
        lv: None where no ventricle was measured; ``quality`` says why.
        presence: probability that the frame shows an apical view of a left ventricle.
        dropped: frames of this session dropped so far.
        saved_seq: the last frame that a killed server does not lose, None before there is one.
    """

    seq: int
    time_us: int | None
    mask: Mask | None
    areas_px: Mapping[str, float]
    lv: Ventricle | None
    presence: float
    quality: Quality
    ef: EjectionFraction
    dropped: int
    stages_ms: StagesMs
    saved_seq: int | None = None


@dataclass(frozen=True, slots=True)
class Dropped:
    """The answer to a frame that was not segmented."""

    seq: int
    time_us: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Beat:
    """A beat closed; one of the same number and a higher revision takes its place."""

    number: int
    revision: int
    ed_seq: int
    es_seq: int
    ed_time_ms: float | None
    es_time_ms: float | None
    ed_volume_ml: float | None
    es_volume_ml: float | None
    ef_percent: float
    fac_percent: float
    is_complete: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Summary:
    """The end of a session: all beats in their last revision, and the EF."""

    session: str
    results: int
    dropped: int
    beats: tuple[Beat, ...]
    ef: EjectionFraction


@dataclass(frozen=True, slots=True)
class Drain:
    """The server is going away; frames after ``last_seq`` are not answered there."""

    resume: str
    resume_within_s: float
    last_seq: int | None


Message = Ready | Result | Dropped | Beat | Summary | Drain

Value = TypeVar("Value")


def build(kind: type[Value], values: Mapping[str, Any]) -> Value:
    """Fill a dataclass from JSON: lists become tuples, unknown fields are left out.

    Fields that came later than version 1 of the protocol are missing from older servers; those have
    a default.

    Raises:
        TypeError: a field without a default is missing.
    """
    names: tuple[str, ...] = kind.__match_args__  # type: ignore[attr-defined]
    found = {name: values[name] for name in names if name in values}
    return kind(**{n: tuple(v) if isinstance(v, list) else v for n, v in found.items()})


def parse_ejection_fraction(values: Mapping[str, Any]) -> EjectionFraction:
    """Read the EF of a message or of a clip's result."""
    return build(EjectionFraction, values)


def parse_result(values: Mapping[str, Any]) -> Result:
    """Read the answer to one frame."""
    lv, mask = values["lv"], values["mask"]
    parts = {
        "mask": None if mask is None else parse_mask(mask),
        "lv": None if lv is None else build(Ventricle, lv),
        "quality": build(Quality, values["quality"]),
        "ef": parse_ejection_fraction(values["ef"]),
        "stages_ms": build(StagesMs, values["stages_ms"]),
    }
    return build(Result, {**values, **parts})


def _parse_summary(values: Mapping[str, Any]) -> Summary:
    beats = [build(Beat, beat) for beat in values["beats"]]
    return build(Summary, {**values, "beats": beats, "ef": parse_ejection_fraction(values["ef"])})


def parse_message(text: str | bytes) -> Message | GdkvmError | None:
    """Read one message of the server.

    Returns:
        The message; for ``error`` the exception that stands for it, not raised; None for a type
        that this version does not know.

    Raises:
        BadAnswerError: not JSON, or a known type of another shape.
    """
    try:
        values = orjson.loads(text)
        match values["type"]:
            case "ready":
                return build(Ready, {**values, "model": build(Model, values["model"])})
            case "result":
                return parse_result(values)
            case "dropped":
                return build(Dropped, values)
            case "beat":
                return build(Beat, values)
            case "summary":
                return _parse_summary(values)
            case "drain":
                return build(Drain, values)
            case "error":
                return error_of(values["code"], values["message"], bool(values["retryable"]))
    except (KeyError, TypeError, ValueError) as error:
        raise BadAnswerError(f"the server said what is not of {SUBPROTOCOL}: {error!r}") from error
    return None
