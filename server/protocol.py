"""The wire of ``GET /v1/stream``, subprotocol ``gdkvm.v1``: parse, serialise, version.

Control messages are JSON text; frames are binary, a header of 32 bytes and a payload. The header,
little-endian:

    offset  type  field
    0       4 s   magic, b"GDKF"
    4       u8    version, 1
    5       u8    codec: 0 gray8, 1 rgb24, 2 jpeg, 3 png, 4 h264, 5 hevc, 6 mjpeg
    6       u16   flags, 0
    8       u64   seq, rising within a session
    16      i64   time_us, acquisition time in microseconds; -2**63 where unknown
    24      u32   payload_bytes, the length of what follows the header
    28      u32   reserved, 0

``docs/protocol.md`` says the same with examples.
"""

import struct
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, TypeAdapter, ValidationError

from model import Beat, EjectionFraction, Quality, Ventricle
from server.errors import MalformedMessageError, UnknownMessageError

SUBPROTOCOL = "gdkvm.v1"
VERSION = 1

HEADER = struct.Struct("<4sBBHQqII")
MAGIC = b"GDKF"
UNKNOWN_TIME_US = -(2**63)

Codec = Literal["gray8", "rgb24", "jpeg", "png", "h264", "hevc", "mjpeg"]
CODECS: tuple[Codec, ...] = ("gray8", "rgb24", "jpeg", "png", "h264", "hevc", "mjpeg")
"""The codec byte of the header is the index here."""

MaskEncoding = Literal["rle", "png", "contour", "none"]
Policy = Literal["latest", "every"]
View = Literal["A4C", "A2C"]
DropReason = Literal["replaced", "repeated", "no_picture"]

Side = Annotated[int, Field(ge=16, le=8192)]
Corner = Annotated[int, Field(ge=0, le=8191)]
SpacingMm = Annotated[float, Field(ge=0.001, le=10)]


class ClientMessage(BaseModel):
    """What a client says; nothing unknown is let through."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Hello(ClientMessage):
    """The first message: what will be sent and how it shall be answered."""

    type: Literal["hello"] = "hello"
    size: tuple[Side, Side] = Field(description="Rows and columns of every frame, in pixels.")
    codec: Codec = Field(default="gray8", description="Of every frame's payload.")
    view: View | None = Field(default=None, description="Apical view, where known.")
    spacing_mm: tuple[SpacingMm, SpacingMm] | None = Field(
        default=None, description="Size of a pixel along rows and columns; null: no cm, no ml."
    )
    fps: Annotated[PositiveFloat, Field(le=1000)] | None = Field(
        default=None, description="Nominal frame rate."
    )
    region: tuple[Corner, Corner, Side, Side] | None = Field(
        default=None,
        description="Top, left, height and width of the sector; null: found by content.",
    )
    mask_encoding: MaskEncoding = Field(default="rle", description="How masks are written.")
    policy: Policy = Field(
        default="latest",
        description="latest: a waiting frame is replaced by a newer one; every: none is, and "
        "unanswered frames may not exceed the credits.",
    )
    model: Annotated[str, Field(max_length=64)] | None = Field(
        default=None, description="Name of the model; null: the server's own choice."
    )
    resume: Annotated[str, Field(max_length=128)] | None = Field(
        default=None, description="Token of a session to go on with."
    )


class Bye(ClientMessage):
    """The last message; every frame sent before it is answered, then comes the summary."""

    type: Literal["bye"] = "bye"


class ServerMessage(BaseModel):
    """What the server says."""

    model_config = ConfigDict(frozen=True)

    def to_json(self) -> str:
        """As one JSON text."""
        return self.model_dump_json()


class ModelName(BaseModel, frozen=True):
    """Which network answers."""

    name: str
    version: str
    sha256: str = Field(description="Of the exact weights.")
    precision: str | None = Field(default=None, description="f32, bf16 or int8, as computed here.")


class Ready(ServerMessage):
    """The session is open."""

    type: Literal["ready"] = "ready"
    session: str = Field(description="Public name of the session, for logs on both sides.")
    resume: str = Field(description="Secret that resumes this session after a cut.")
    resume_within_s: float = Field(description="How long a cut session is kept.")
    resumed: bool = Field(description="Whether an earlier session goes on.")
    last_seq: int | None = Field(description="The last frame answered; null in a new session.")
    credits: int = Field(description="Unanswered frames allowed at any time under policy every.")
    policy: Policy
    mask_encoding: MaskEncoding
    model: ModelName
    network_size: int = Field(description="Side of the network's input, in pixels.")
    structures: tuple[str, ...] = Field(description="Label i + 1 of a label map is structures[i].")


class StagesMs(BaseModel):
    """Where a frame's time went, in milliseconds."""

    queue: float = Field(description="Waiting for a worker.")
    decode: float = Field(description="Payload to grey pixels.")
    infer: float = Field(description="Preprocessing and the network.")
    measure: float = Field(description="Contours, volume, beats, mask encoding.")
    total: float = Field(description="From the last byte received to the answer written.")


class LvMessage(BaseModel):
    """The left ventricle of one frame; lengths and volumes are null without pixel spacing."""

    area_px: float
    area_cm2: float | None
    length_cm: float | None
    volume_ml: float | None

    @classmethod
    def of(cls, lv: Ventricle | None) -> "LvMessage | None":
        """Take over what is measured; None where there is no ventricle."""
        if lv is None:
            return None
        return cls.model_construct(
            area_px=round(lv.area_px, 1),
            area_cm2=rounded(lv.area_cm2, 3),
            length_cm=rounded(lv.length_cm, 3),
            volume_ml=rounded(lv.volume_ml, 2),
        )


class QualityMessage(BaseModel):
    """Whether a frame may be measured."""

    state: Literal["pass", "warn", "fail"]
    reasons: tuple[str, ...]

    @classmethod
    def of(cls, quality: Quality) -> "QualityMessage":
        """Take over the verdict."""
        return cls.model_construct(state=quality.state, reasons=quality.reasons)


class EfMessage(BaseModel):
    """The ejection fraction so far, 0 to 100 percent, or why there is none."""

    state: Literal["pending", "measured", "withheld"]
    percent: float | None
    interval: tuple[float, float] | None = Field(description="Low and high, the central 90 %.")
    method: str
    beats: int
    heart_rate_bpm: float | None
    edv_ml: float | None
    esv_ml: float | None
    reasons: tuple[str, ...]

    @classmethod
    def of(cls, ef: EjectionFraction) -> "EfMessage":
        """Take over the figure, to one decimal."""
        interval = ef.interval and (round(ef.interval[0], 1), round(ef.interval[1], 1))
        return cls.model_construct(
            state=ef.state,
            percent=rounded(ef.percent, 1),
            interval=interval,
            method=ef.method,
            beats=ef.beats,
            heart_rate_bpm=rounded(ef.heart_rate_bpm, 1),
            edv_ml=rounded(ef.edv_ml, 1),
            esv_ml=rounded(ef.esv_ml, 1),
            reasons=ef.reasons,
        )


class RleMask(BaseModel):
    """A mask as run lengths on the source grid."""

    encoding: Literal["rle"] = "rle"
    size: tuple[int, int] = Field(description="Rows and columns of the source grid.")
    counts: dict[str, list[int]] = Field(
        description="Per structure: lengths of runs in row-major order, background first."
    )


class PngMask(BaseModel):
    """A mask as an image on the source grid."""

    encoding: Literal["png"] = "png"
    size: tuple[int, int] = Field(description="Rows and columns of the source grid.")
    png: str = Field(description="Base64 of an 8-bit grey PNG whose values are labels.")


class ContourMask(BaseModel):
    """A mask as outlines, at sub-pixel precision."""

    encoding: Literal["contour"] = "contour"
    size: tuple[int, int] = Field(description="Rows and columns of the source grid.")
    contours: dict[str, list[list[list[float]]]] = Field(
        description="Per structure: closed outlines of [row, column], largest first."
    )


MaskMessage = RleMask | PngMask | ContourMask


class Result(ServerMessage):
    """The answer to one frame."""

    type: Literal["result"] = "result"
    seq: int
    time_us: int | None
    mask: MaskMessage | None
    areas_px: dict[str, float] = Field(description="Area of every structure, in source pixels.")
    lv: LvMessage | None
    presence: float = Field(description="Probability that this is an apical view of a ventricle.")
    quality: QualityMessage
    ef: EfMessage
    dropped: int = Field(description="Frames of this session dropped so far.")
    saved_seq: int | None = Field(
        default=None, description="The last frame that a killed server does not lose; null: none."
    )
    stages_ms: StagesMs


class Dropped(ServerMessage):
    """The answer to a frame that was not segmented."""

    type: Literal["dropped"] = "dropped"
    seq: int
    time_us: int | None
    reason: DropReason = Field(
        description="replaced: a newer frame came first; repeated: not above the last answered "
        "seq, and its answer is no longer kept; no_picture: the video packet held no picture."
    )


class BeatMessage(ServerMessage):
    """A beat closed, or one already announced is revised (same number, higher revision)."""

    type: Literal["beat"] = "beat"
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
    reasons: tuple[str, ...] = Field(description="Why it does not count; empty when it does.")

    @classmethod
    def of(cls, beat: Beat) -> "BeatMessage":
        """Take over a beat, rounded to what a reader can use."""
        return cls(
            number=beat.number,
            revision=beat.revision,
            ed_seq=beat.ed_seq,
            es_seq=beat.es_seq,
            ed_time_ms=rounded(beat.ed_time_ms, 3),
            es_time_ms=rounded(beat.es_time_ms, 3),
            ed_volume_ml=rounded(beat.ed_volume_ml, 2),
            es_volume_ml=rounded(beat.es_volume_ml, 2),
            ef_percent=round(beat.ef_percent, 1),
            fac_percent=round(beat.fac_percent, 1),
            is_complete=beat.is_complete,
            reasons=beat.reasons,
        )


class Summary(ServerMessage):
    """The answer to bye."""

    type: Literal["summary"] = "summary"
    session: str
    results: int = Field(description="Frames segmented.")
    dropped: int = Field(description="Frames dropped.")
    beats: tuple[BeatMessage, ...] = Field(description="All beats, each in its last revision.")
    ef: EfMessage


class Drain(ServerMessage):
    """The server is going away; frames after last_seq are not answered here."""

    type: Literal["drain"] = "drain"
    resume: str
    resume_within_s: float
    last_seq: int | None


class ErrorMessage(ServerMessage):
    """The session ends; a close code follows."""

    type: Literal["error"] = "error"
    code: str
    message: str
    retryable: bool
    retry_after_s: float | None = Field(
        default=None, description="Seconds after which asking again may be worth while."
    )


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """The 32 bytes before a payload."""

    codec: Codec
    seq: int
    time_us: int | None
    payload_bytes: int

    def to_bytes(self) -> bytes:
        """As 32 bytes, little-endian."""
        time_us = UNKNOWN_TIME_US if self.time_us is None else self.time_us
        codec = CODECS.index(self.codec)
        return HEADER.pack(MAGIC, VERSION, codec, 0, self.seq, time_us, self.payload_bytes, 0)


def parse_frame(message: bytes) -> tuple[FrameHeader, memoryview]:
    """Split a binary message into header and payload.

    Raises:
        MalformedMessageError: too short, another magic or version, or a length that is not there.
    """
    if len(message) < HEADER.size:
        raise MalformedMessageError(f"a frame has a header of 32 bytes, got {len(message)} bytes")
    magic, version, codec, flags, seq, time_us, payload_bytes, reserved = HEADER.unpack_from(
        message
    )
    if magic != MAGIC or version != VERSION:
        raise MalformedMessageError(
            f"a frame starts with GDKF and version 1, got version {version}"
        )
    if codec >= len(CODECS):
        raise MalformedMessageError(f"codec bytes are 0 to {len(CODECS) - 1}, got {codec}")
    if flags or reserved:
        raise MalformedMessageError("flags and reserved must be 0")
    payload = memoryview(message)[HEADER.size :]
    if payload_bytes != len(payload) or not payload:
        raise MalformedMessageError(
            f"header says {payload_bytes} payload bytes, got {len(payload)}"
        )
    known_us = None if time_us == UNKNOWN_TIME_US else time_us
    return FrameHeader(CODECS[codec], seq, known_us, payload_bytes), payload


_CLIENT_MESSAGES: TypeAdapter[Hello | Bye] = TypeAdapter(
    Annotated[Hello | Bye, Field(discriminator="type")]
)


def parse_message(text: str) -> Hello | Bye:
    """Read a control message.

    Raises:
        UnknownMessageError: a type that this version does not know.
        MalformedMessageError: not JSON, or not of the documented shape.
    """
    try:
        return _CLIENT_MESSAGES.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        if first["type"] == "union_tag_invalid":
            raise UnknownMessageError("a client sends hello or bye, got another type") from error
        place = ".".join(str(part) for part in first["loc"]) or "message"
        raise MalformedMessageError(f"{place}: {first['msg']}") from error


def rounded(value: float | None, digits: int) -> float | None:
    """Round for the wire; what is unknown stays None."""
    return None if value is None else round(value, digits)
