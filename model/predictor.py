"""The only door for inference: frames and states in, masks and new states out."""

import hashlib
import json
import math
import struct
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.backends.base import Backend, Detour, Run
from model.backends.choice import BackendName, Choice, choose
from model.colours import ColourWatch
from model.cuts import CutWatch
from model.errors import FrameError, StateError
from model.frame import APICAL_PRESENCE, Fit, Frame, Mask, Region
from model.lookout import Lookout
from model.pictures import COLOUR_LOOK_FRAMES
from model.preprocess import background_of, clip_region, find_sector, make_fit, to_network_input
from model.scale import ScaleWatch
from model.state import MemoryState
from model.stillness import StillWatch
from model.weights import WEIGHTS_DIR, ModelInfo, load_info

SELF_TEST_FRAMES = 3
SELF_TEST_TOLERANCE = 0.05
"""Largest difference of a pooled LV probability that reduced precision may cause."""

_VIEW_HEADER = struct.Struct("<I32s")

_Watch = Lookout | ScaleWatch | ColourWatch | StillWatch | CutWatch

_WATCHES: dict[str, type[_Watch]] = {
    "lookout": Lookout,
    "scale": ScaleWatch,
    "colours": ColourWatch,
    "stillness": StillWatch,
    "cuts": CutWatch,
}
"""What a session's state holds beside the network's memory, by the name of its attribute."""


@dataclass(frozen=True, slots=True, eq=False)
class StreamState:
    """What a session owns between two frames.

    Attributes:
        memory: the network's recurrent state.
        region: box that the client declared, None where the sector is to be found by content.
        spacing_mm: row and column spacing that the client declared, or None.
        fit: where the network looks, None before the first frame.
        is_locked: the sector was found or declared; until then every frame is searched for it.
        background: grey of the screen around a sector that was found, 0 where it is black.
        lookout: what was seen lately of a sector that was found.
        scale: whether the pixels still have the size that the client declared.
        colours: what was seen lately of colour over the heart.
        stillness: since when the image has been the same.
        cuts: what the picture was, and whether it became another one.
        misled_frames: about so many frames before the last one were looked at in the wrong place,
            or under colour; 0 unless that was noticed with the last one.
    """

    memory: MemoryState
    region: Region | None
    spacing_mm: tuple[float, float] | None
    fit: Fit | None = None
    is_locked: bool = False
    background: int = 0
    lookout: Lookout = field(default_factory=Lookout)
    scale: ScaleWatch = field(default_factory=ScaleWatch)
    colours: ColourWatch = field(default_factory=ColourWatch)
    stillness: StillWatch = field(default_factory=StillWatch)
    cuts: CutWatch = field(default_factory=CutWatch)
    misled_frames: int = 0

    def to_bytes(self, model_sha256: str) -> bytes:
        """Length, checksum and JSON of the view, then the memory, which has its own checksum."""
        view = {
            "region": None if self.region is None else asdict(self.region),
            "spacing_mm": self.spacing_mm,
            "fit": None if self.fit is None else asdict(self.fit),
            "is_locked": self.is_locked,
            "background": self.background,
            **{name: getattr(self, name).to_view() for name in _WATCHES},
        }
        text = json.dumps(view).encode()
        header = _VIEW_HEADER.pack(len(text), hashlib.sha256(text).digest())
        return header + text + self.memory.to_bytes(model_sha256)


class Predictor:
    """Segments frames with one model; safe to call from several threads at once."""

    def __init__(self, model: ModelInfo, backend: Backend, choice: Choice | None = None) -> None:
        """Put a model and what runs it together.

        Args:
            model: the weights.
            backend: runs them.
            choice: why this backend, where it was chosen.
        """
        self.model = model
        self.backend = backend
        self.choice = choice

    @property
    def precision(self) -> str | None:
        """Of the network's arithmetic: ``f32``, ``bf16`` or ``int8``; None where nobody chose."""
        return None if self.choice is None else self.choice.precision

    @property
    def identity(self) -> dict[str, str | None]:
        """What decides every bit of an answer: name and version, SHA-256, and precision."""
        named = {"name": self.model.name, "version": self.model.version}
        return {**named, "sha256": self.model.sha256, "precision": self.precision}

    def by_way_of(self, run: Run) -> "Predictor":
        """The same model, the network's steps run by somebody else, such as a queue."""
        return Predictor(self.model, Detour(self.backend, run), self.choice)

    def start(
        self, region: Region | None = None, spacing_mm: tuple[float, float] | None = None
    ) -> StreamState:
        """The state before a session's first frame.

        Args:
            region: box that holds the ultrasound image, None to find it by content.
            spacing_mm: row and column spacing, None where unknown.

        Raises:
            FrameError: a spacing that no pixel can have.
        """
        if spacing_mm is not None and not all(0.0 < mm < math.inf for mm in spacing_mm):
            raise FrameError(f"pixel spacing must be above 0 mm and finite, got {spacing_mm}")
        return StreamState(MemoryState.zeros(self.backend.spec), region, spacing_mm)

    def step(self, frame: Frame, state: StreamState) -> tuple[Mask, StreamState]:
        """Segment one frame.

        Args:
            frame: the next frame of the session.
            state: what the session's frames before left behind; see ``Backend.step``.

        Raises:
            FrameError: the frame's size is not the session's, or the declared region lies outside.
            StateError: the network answered with numbers that are not finite.
        """
        state, fit = self._look(frame, state)
        image_11HW = to_network_input(frame.pixels_HW, fit, state.background)
        probabilities_NHW, presence, memory = self.backend.step(image_11HW, state.memory)
        is_finite = np.isfinite(presence) and np.isfinite(probabilities_NHW).all()
        if not (is_finite and memory.is_finite()):
            raise StateError("the network's answer is not finite; the session cannot go on")
        stillness = state.stillness.after(frame, image_11HW)
        was_still = state.stillness.is_still
        cuts = state.cuts.after(frame, stillness.cells_HW, presence, was_still=was_still)
        scale = state.scale.after_picture(state.cuts, cuts)
        mask = Mask(
            probabilities_NHW,
            fit,
            presence,
            is_one_of_several=state.lookout.shows_several,
            is_resized=scale.is_left(fit.region),
            still_since_seq=stillness.since_seq,
        )
        colours, misled = state.colours.after(frame, mask), state.misled_frames
        if colours.is_covered:
            mask = replace(mask, is_coloured=True)
            if not state.colours.is_covered:
                misled = max(misled, COLOUR_LOOK_FRAMES)
        is_apical = presence >= APICAL_PRESENCE and state.is_locked
        after = replace(
            state,
            memory=memory,
            scale=scale.after(fit.region, is_apical=is_apical),
            colours=colours,
            stillness=stillness,
            cuts=cuts,
            misled_frames=misled,
        )
        return mask, after

    def _look(self, frame: Frame, state: StreamState) -> tuple[StreamState, Fit]:
        rows, cols = frame.pixels_HW.shape
        if state.fit is not None and state.fit.source_size != (rows, cols):
            wanted = state.fit.source_size
            raise FrameError(
                f"frame is {rows}x{cols} px, this session's are {wanted[0]}x{wanted[1]} px"
            )
        move = None
        if state.is_locked and state.fit is not None:
            if state.region is not None:
                return replace(state, misled_frames=0), state.fit
            lookout = state.lookout.after(frame.pixels_HW, state.fit.region)
            move = lookout.moved_to(state.fit.region)
            if move is None:
                return replace(state, lookout=lookout, misled_frames=0), state.fit
        region = self._region(frame, state) if move is None else move.region
        whole = Region(0, 0, rows, cols)
        fit = make_fit(region or whole, (rows, cols), self.model.network_size, state.spacing_mm)
        # The grid moves under the memory.
        is_moved = region is not None and state.fit is not None
        is_found = region is not None and state.region is None
        looking = replace(
            state,
            memory=MemoryState.zeros(self.backend.spec) if is_moved else state.memory,
            fit=fit,
            is_locked=region is not None,
            background=background_of(frame.pixels_HW) if is_found else 0,
            lookout=Lookout(several_looks=state.lookout.several_looks),
            scale=state.scale.elsewhere() if is_moved else state.scale,
            cuts=CutWatch(),
            misled_frames=0 if move is None else move.frames,
        )
        return looking, fit

    @staticmethod
    def _region(frame: Frame, state: StreamState) -> Region | None:
        if state.region is None:
            return find_sector(frame.pixels_HW)
        rows, cols = frame.pixels_HW.shape
        region = clip_region(state.region, (rows, cols))
        if region is None:
            raise FrameError(f"the declared region lies outside the {rows}x{cols} px frame")
        return region

    def resume(self, blob: bytes) -> StreamState:
        """Read a state that ``StreamState.to_bytes`` wrote for this very model.

        Raises:
            StateError: not such bytes, or another model's.
        """
        try:
            length, digest = _VIEW_HEADER.unpack_from(blob)
            text = blob[_VIEW_HEADER.size :][:length]
            if hashlib.sha256(text).digest() != digest:
                raise StateError("these bytes are not a saved session, or they are damaged")
            view = json.loads(text)
            region, fit = _read_region(view["region"]), _read_fit(view["fit"])
            spacing = None if view["spacing_mm"] is None else tuple(view["spacing_mm"])
            is_locked = bool(view["is_locked"])
            # An earlier release kept none of these.
            background = int(view.get("background", 0))
            watches: dict[str, Any] = {
                name: watch.from_view(**view[name])
                for name, watch in _WATCHES.items()
                if name in view
            }
        except (struct.error, ValueError, KeyError, TypeError, FrameError) as error:
            raise StateError("these bytes are not a saved session") from error
        memory_blob = blob[_VIEW_HEADER.size + length :]
        memory = MemoryState.from_bytes(memory_blob, self.backend.spec, self.model.sha256)
        return StreamState(
            memory, region, spacing, fit, is_locked, background=background, **watches
        )

    def self_test(self) -> bool:
        """Whether a synthetic clip gives the mask that the manifest records for these weights."""
        found = np.array(self_test_answer(self))
        wanted = np.array(self.model.self_test)
        return found.shape == wanted.shape and bool(
            np.abs(found - wanted).max() <= SELF_TEST_TOLERANCE
        )


def _read_region(values: dict[str, int] | None) -> Region | None:
    return None if values is None else Region(**values)


def _read_fit(values: dict[str, Any] | None) -> Fit | None:
    if values is None:
        return None
    size = tuple(values["source_size"])
    return Fit(**{**values, "region": Region(**values["region"]), "source_size": size})


def self_test_frame(seq: int) -> Frame:
    """A bright wall around a dark ellipse under a fixed texture: a heart for the self-test only."""
    rows, cols = np.mgrid[0:192, 0:192]
    wide = 40.0 - 4.0 * seq
    radius = np.hypot((rows - 85.0) / (1.5 * wide), (cols - 100.0) / wide)
    sector = np.abs(cols - 96.0) < 0.8 * (rows + 4.0)
    image = np.where(radius < 1.0, 30.0, np.where(radius < 1.3, 150.0, 80.0))
    texture = 1.0 + 0.25 * np.sin(1.7 * rows) * np.cos(2.3 * cols)
    return Frame(seq, None, (image * texture * sector).clip(0, 255).astype(np.uint8))


def self_test_answer(predictor: Predictor) -> list[list[float]]:
    """LV probability after the self-test clip, averaged over a 9 x 9 grid."""
    state = predictor.start(region=Region(0, 0, 192, 192))
    for seq in range(SELF_TEST_FRAMES):
        mask, state = predictor.step(self_test_frame(seq), state)
    return pooled(mask.probabilities_NHW[0])


def pooled(probability_HW: NDArray[np.float32]) -> list[list[float]]:
    """Means over a 9 x 9 grid, rounded to four digits."""
    edges = np.linspace(0, probability_HW.shape[0], 10).astype(int)
    return [
        [round(float(probability_HW[a:b, c:d].mean()), 4) for c, d in pairwise(edges)]
        for a, b in pairwise(edges)
    ]


def load_predictor(
    name: str | None = None,
    *,
    backend: BackendName = "auto",
    threads: int = 1,
    streams: int | None = 1,
    precision: str | None = None,
    folder: Path = WEIGHTS_DIR,
) -> Predictor:
    """Load a model of the manifest, checksum verified, and make it ready on this machine.

    Args:
        name: a name of the manifest, None for the default.
        backend: what runs it; ``auto`` goes by the machine.
        threads: processor threads for inference in all.
        streams: frames inferred at the same time; None measures how many are best.
        precision: ``int8``, ``bf16``, ``f32``, or None for what the processor does best.
        folder: where manifest and files are.

    Raises:
        WeightsError: no such model, a file that is missing or damaged, or a backend that is not
            installed.
    """
    model = load_info(name, folder)
    made, choice = choose(
        model, backend=backend, threads=threads, streams=streams, precision=precision
    )
    return Predictor(model, made, choice)
