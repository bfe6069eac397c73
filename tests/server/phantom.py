"""A beating phantom of known size, and a predictor that reads it off its grey levels."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import numpy as np
import pytest
import uvicorn
from numpy.typing import NDArray
from pydicom import Dataset

import server.app
from model import Predictor
from model.config import ModelConfig
from model.predictor import self_test_answer
from model.state import MemoryState, StateSpec
from model.weights import ModelInfo
from server.app import Parts, create_app
from server.settings import Settings
from tests.server.ingest.making import save, ultrasound

SIDE_PX = 144
SPACING_MM = 0.8
FRAME_MS = 40.0
BEAT_FRAMES = 20

ED_HALF_WIDTH_PX, ED_LENGTH_PX = 22.0, 70.0
WALL_PX, BASE_ROW, MIDDLE_COL = 8.0, 100.0, 71.5
EF_PERCENT = 50.0

TISSUE, CAVITY, WALL, ATRIUM = 40, 100, 160, 220
"""Grey levels, far enough apart to survive a lossy film."""


def shrink_of(index: int) -> float:
    """All lengths of a frame's ventricle over those at end diastole."""
    emptied = (1 - np.cos(2 * np.pi * index / BEAT_FRAMES)) / 2
    return float((1 - EF_PERCENT / 100 * emptied) ** (1 / 3))


def ed_volume_ml() -> float:
    """Half an ellipsoid of revolution: two thirds of pi a^2 L."""
    a_cm, length_cm = (px * SPACING_MM / 10 for px in (ED_HALF_WIDTH_PX, ED_LENGTH_PX))
    return 2 / 3 * np.pi * a_cm**2 * length_cm


def picture(index: int) -> NDArray[np.uint8]:
    """One frame: apex up, wall all round, atrium below the base."""
    row, col = np.mgrid[:SIDE_PX, :SIDE_PX].astype(float)
    up, side = (BASE_ROW - row) / shrink_of(index), np.abs(col - MIDDLE_COL) / shrink_of(index)
    is_above = row <= BASE_ROW
    cavity = np.hypot(side / ED_HALF_WIDTH_PX, up / ED_LENGTH_PX) < 1
    outer = np.hypot(side / (ED_HALF_WIDTH_PX + WALL_PX), up / (ED_LENGTH_PX + WALL_PX)) < 1
    atrium = np.hypot(side / ED_HALF_WIDTH_PX, up / 30.0) < 1
    image = np.full((SIDE_PX, SIDE_PX), TISSUE, np.uint8)
    image[outer & is_above] = WALL
    image[cavity & is_above] = CAVITY
    image[atrium & ~is_above] = ATRIUM
    # Tissue of one grey up to the edge would be taken for a grey screen.
    image[[0, -1]] = image[:, [0, -1]] = 0
    return image


def true_labels(index: int) -> NDArray[np.uint8]:
    """What the phantom is, 1 ventricle, 2 wall, 3 atrium."""
    levels = np.array([TISSUE, CAVITY, WALL, ATRIUM], np.uint8)
    return np.asarray(np.argmax(picture(index)[..., None] == levels, axis=-1), np.uint8)


def whole_image_region() -> Dataset:
    """A calibrated region that is the whole image."""
    item = Dataset()
    item.RegionSpatialFormat, item.RegionDataType, item.RegionFlags = 1, 1, 0
    item.RegionLocationMinX0 = item.RegionLocationMinY0 = 0
    item.RegionLocationMaxX1 = item.RegionLocationMaxY1 = SIDE_PX - 1
    item.PhysicalUnitsXDirection = item.PhysicalUnitsYDirection = 3
    item.PhysicalDeltaX = item.PhysicalDeltaY = SPACING_MM / 10
    return item


def phantom_clip(path: Path, count: int = 3 * BEAT_FRAMES + 5, *, flow: bool = False) -> Path:
    """Write the phantom as an uncompressed DICOM cine, with a box of colour where wanted."""
    frames = np.stack([picture(index) for index in range(count)])
    if flow:
        frames = np.repeat(frames[..., None], 3, axis=3)
        frames[:, 60:90, 60:84] = (200, 30, 10)
    made = ultrasound(
        frames,
        "RGB" if flow else "MONOCHROME2",
        FrameTime=str(FRAME_MS),
        SequenceOfUltrasoundRegions=[whole_image_region()],
    )
    return save(made, path)


@dataclass
class GreyBackend:
    """Calls each grey level the structure that it stands for.

    Attributes:
        gate: while it is cleared, no frame is answered.
        begun: released once for every frame begun.
        failure: raised instead of an answer, where there is one.
    """

    name: str = "grey"
    spec: StateSpec = field(default_factory=lambda: StateSpec(("count",), ((1, 1),)))
    gate: threading.Event = field(default_factory=threading.Event)
    begun: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    failure: Exception | None = None

    def __post_init__(self) -> None:
        self.gate.set()

    def step(
        self, image_11HW: NDArray[np.float32], state: MemoryState
    ) -> tuple[NDArray[np.float32], float, MemoryState]:
        self.begun.release()
        assert self.gate.wait(30)
        if self.failure is not None:
            raise self.failure
        nearest_HW = np.round((image_11HW[0, 0] * 255 - TISSUE) / 60).clip(0, 3)
        probabilities_NHW = np.stack([nearest_HW == label for label in (1, 2, 3)])
        count = MemoryState(self.spec, (state.arrays[0] + 1,))
        presence = 1.0 if probabilities_NHW[0].any() else 0.0
        return probabilities_NHW.astype(np.float32), presence, count


def grey_predictor(backend: GreyBackend | None = None) -> Predictor:
    """A predictor of the phantom."""
    model = ModelInfo(
        name="grey",
        version="1.2.3",
        sha256="ab" * 32,
        licence="none",
        config=ModelConfig(network_size=SIDE_PX),
        path=Path("grey"),
        self_test=(),
    )
    backend = backend or GreyBackend()
    answer = self_test_answer(Predictor(model, backend))
    return Predictor(replace(model, self_test=tuple(map(tuple, answer))), backend)


@dataclass(frozen=True)
class Served:
    """A server that runs in this process."""

    url: str
    http: httpx.Client
    parts: Parts
    backend: GreyBackend

    def port(self) -> int:
        return httpx.URL(self.url).port or 0


@contextmanager
def serving(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> Iterator[Served]:
    """Serve with the phantom's predictor on a free port until the block is left."""
    backend = GreyBackend()
    predictor = grey_predictor(backend)
    monkeypatch.setattr(server.app, "load_predictor", lambda *_, **__: predictor)
    app = create_app(settings)
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, ws="websockets-sansio")
    runner = uvicorn.Server(config)
    thread = threading.Thread(target=runner.run)
    thread.start()
    while not runner.started:
        assert thread.is_alive()
        thread.join(0.01)
    port = runner.servers[0].sockets[0].getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with httpx.Client(base_url=url, timeout=60) as http:
        try:
            yield Served(url, http, app.state.parts, backend)
        finally:
            backend.gate.set()
            runner.should_exit = True
            thread.join()
