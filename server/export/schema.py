"""The clip result as a JSON schema, for whoever reads it by program.

``1`` of its address rises with a change that breaks a reader; new fields do not.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from server.protocol import EfMessage, LvMessage, QualityMessage

VERSION = "1.0"
ADDRESS = "/v1/schemas/clip-result.json"


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow")


class TimeBaseResult(_Part):
    """Where the times of the frames come from."""

    source: str | None = Field(description="DICOM attribute, or Container; null where unknown.")
    duration_ms: float | None = Field(description="First frame's start to last frame's end.")


class ClipPart(_Part):
    """The file."""

    frames: int = Field(ge=0, description="How many.")
    size: tuple[int, int] = Field(description="Rows and columns in pixels.")
    spacing_mm: tuple[float, float] | None = Field(
        description="Row and column size of a pixel; null where the file is not calibrated."
    )
    time_base: TimeBaseResult
    view: str | None = Field(description="Such as A4C; null where nobody said.")
    warnings: list[str] = Field(description="Codes of what to be careful about.")


class BeatResult(_Part):
    """One beat."""

    ed_seq: int = Field(ge=0, description="Frame of end diastole.")
    es_seq: int = Field(ge=0, description="Frame of end systole.")
    ef_percent: float
    is_complete: bool = Field(description="False for one that an end of the clip cuts off.")
    reasons: list[str] = Field(
        description="What is against this beat; where the clip's EF is withheld none counts."
    )


class FrameResult(_Part):
    """One frame."""

    seq: int = Field(ge=0)
    time_ms: float | None = Field(description="From the first frame on; null where unknown.")
    lv: LvMessage | None = Field(description="Null where no ventricle was measured.")
    quality: QualityMessage


class ModelPart(_Part):
    """The network."""

    name: str
    version: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="Of the exact weights.")
    precision: str | None = Field(
        default=None, description="Of the arithmetic: f32, bf16 or int8; null where unknown."
    )


class FigureResult(_Part):
    """One derived figure, or why it is missing."""

    name: str
    value: float | None
    unit: str
    method: str
    beats: int = Field(ge=0)
    reason: str | None


class InstantDisks(_Part):
    """The ventricle at one end of systole."""

    length: float
    diameters: list[float] = Field(description="Of equal slices, from apex to base.")


class DisksResult(_Part):
    """What the method of disks adds up; the input of biplane volumes."""

    unit: str
    ed: InstantDisks
    es: InstantDisks


class RWavesResult(_Part):
    """The file's R waves against end diastole."""

    count: int
    heart_rate_bpm: float | None
    compared: int
    ed_after_r_ms: float | None
    farthest_ms: float | None
    unmatched: int
    agrees: bool | None


class NormalRange(_Part):
    """Low and high of healthy adults."""

    name: str
    unit: str
    men: tuple[float, float]
    women: tuple[float, float]


class NormalRanges(_Part):
    """Published context for a reader."""

    version: str
    source: str
    note: str
    ranges: list[NormalRange]


class EditSideResult(_Part):
    """A corrected frame, before or after."""

    contours: dict[str, list[list[tuple[float, float]]]] | None = Field(
        description="Outlines of (row, column) points; null where the network's own came back."
    )
    lv_area_px: float | None
    ef_percent: float | None


class EditResult(_Part):
    """One correction of one frame."""

    revision: int = Field(ge=1, description="Of the result that it led to.")
    frame: int = Field(ge=0)
    who: str | None = Field(description="Name of the API key; null where the server has none.")
    time: str = Field(description="UTC, ISO 8601.")
    before: EditSideResult
    after: EditSideResult


class ClipResult(_Part):
    """What was found in a clip. Percent is 0 to 100; what is unknown is null."""

    clip: ClipPart
    ef: EfMessage
    beats: list[BeatResult]
    figures: list[FigureResult]
    disks: DisksResult | None = Field(description="Null where no beat counts.")
    r_waves: RWavesResult | None = Field(description="Null where the file notes none.")
    normal_ranges: NormalRanges
    frames: list[FrameResult]
    revision: int = Field(ge=0, description="How often outlines were corrected.")
    edits: list[EditResult] = Field(description="Every correction, in order.")
    model: ModelPart


def clip_result_schema() -> dict[str, Any]:
    """The schema, by the rules of JSON Schema 2020-12."""
    mode: Literal["serialization"] = "serialization"
    schema = ClipResult.model_json_schema(mode=mode)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": ADDRESS,
        "title": "GDKVM Live clip result",
        "version": VERSION,
        **{name: value for name, value in schema.items() if name != "title"},
    }
