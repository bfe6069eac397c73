"""What an opened file offers: frames one by one, and what the header says of them."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from model import Frame, Region, Sector


@dataclass(frozen=True, slots=True)
class IngestLimits:
    """Bounds that hold before anything is allocated.

    Attributes:
        file_bytes: longest file read, and longest result of unpacking a zip or a deflated DICOM.
        header_elements: most elements of a DICOM header, nested ones included.
        frames: most frames in a clip.
        frame_pixels: most pixels (rows times columns) in a frame.
        decoded_bytes: most bytes of all decoded frames together, all samples counted.
        decode_s: longest time spent in decoders for one clip.
        archive_members: most members of a zip.
        archive_ratio: most bytes that one stored byte of a zip may unpack to.
        decoder_bytes: address space given to a decoder process.
    """

    file_bytes: int = 512 << 20
    header_elements: int = 50_000
    frames: int = 10_000
    frame_pixels: int = 16 << 20
    decoded_bytes: int = 8 << 30
    decode_s: float = 300.0
    archive_members: int = 200
    archive_ratio: int = 200
    decoder_bytes: int = 4 << 30


@dataclass(frozen=True, slots=True)
class TimeBase:
    """Where the frames' times come from.

    Attributes:
        source: keyword of the DICOM attribute, "Container" for a video file, None where unknown.
        duration_ms: from the first frame's start to the last frame's end, None where unknown.
    """

    source: str | None
    duration_ms: float | None


WARNINGS = {
    "region_outside_image": "the declared region runs outside the image, so that neither the "
    "region nor its pixel size is used",
    "several_regions": "several tissue regions are declared; one that moves is used, of several "
    "one with a pixel size, of several the largest",
    "spacing_unusable": "the declared pixel size is no length between 0.02 and 2 mm",
    "frame_rates_disagree": "FrameTime and CineRate differ by more than a tenth",
    "heart_rates_disagree": "HeartRate in the header differs by more than three tenths from what "
    "is measured: the frame times may be wrong, and with them the heart rate and the cardiac "
    "output",
    "time_base_implausible": "a frame rate is given, but outside 5 to 300 frames a second",
    "frame_count_missing": "NumberOfFrames is missing; the frames that are there are read",
    "extra_pixel_data": "there are more frames than declared; the rest is left out",
    "truncated_frames": "the file ends early; its whole frames are read",
    "native_pixel_data_compressed": "declared uncompressed, but stored as a compressed frame",
    "chroma_not_subsampled": "declared 4:2:2, but stored with all its chroma",
    "pixels_made_square": "the clip's pixels are not square; it is taken as players show it",
    "pixels_not_square": "the video says that its pixels are not square; what the header says of "
    "them is used",
}
"""What a clip can warn of, by code."""


@dataclass(slots=True)
class Notes:
    """What is learned while frames are decoded; a clip shows it read-only."""

    warnings: list[str] = field(default_factory=list)
    colour_overlay: bool = False

    def warn(self, code: str) -> None:
        """Remember a warning once."""
        assert code in WARNINGS
        if code not in self.warnings:
            self.warnings.append(code)


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """An opened clip; its frames can be read once, while the file is open.

    Attributes:
        frames: decoded lazily, in order, seq from 0. Reading may raise an IngestError.
        frame_count: how many frames the file holds, None where only reading them tells. A film's is
            its container's claim; where fewer come, the clip warns.
        size: rows and columns in pixels, the same for every frame.
        spacing_mm: distance of neighbouring pixel centres along a column and along a row
            (row spacing, column spacing), None where the file is not calibrated.
        region: the part of the image that shows tissue; where the file does not say, one of several
            sectors, or None.
        sector: the fan that the picture shows inside the region, None where it shows none.
        is_one_of_several: the pictures show other sectors beside the one that is looked at.
        time_base: where the frames' times come from.
        view: such as "A4C" or "PLAX", where the file names one.
        encoding: how the frames are stored, in words.
        heart_rate_bpm: the rate the scanner noted, for a cross-check.
        r_wave_times_ms: R waves from the start of the first frame.
    """

    frames: Iterator[Frame]
    frame_count: int | None
    size: tuple[int, int]
    spacing_mm: tuple[float, float] | None
    region: Region | None
    time_base: TimeBase
    view: str | None
    encoding: str
    sector: Sector | None = None
    is_one_of_several: bool = False
    heart_rate_bpm: float | None = None
    r_wave_times_ms: tuple[float, ...] = ()
    notes: Notes = field(default_factory=Notes)

    @property
    def sight(self) -> Region | None:
        """The box that the network is to look at; None leaves the search to it."""
        return self.region if self.sector is None else self.sector.box

    def seen(self, frame: Frame) -> Frame:
        """The frame as the network is to see it: black outside the sector."""
        if self.sector is None:
            return frame
        return replace(frame, pixels_HW=self.sector.seen(frame.pixels_HW))

    @property
    def warnings(self) -> tuple[str, ...]:
        """Codes of what to be careful about; complete once the frames are read."""
        return tuple(self.notes.warnings)

    @property
    def colour_overlay(self) -> bool:
        """Whether colour (Doppler) lies over the grey image; final once the frames are read."""
        return self.notes.colour_overlay
