"""What a clip's result is handed out as: DICOM objects, films, a page, tables; and its schema."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse

from server.artefacts import anonymous_name
from server.clips import ClipStore
from server.export.schema import ADDRESS, clip_result_schema
from server.routes.clips import PROBLEMS
from server.routes.files import PartedFile

DICOM = "application/dicom"

ALONE = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox allow-modals"
"""What a page that holds all of itself may load, which is nothing."""

Deidentify = Annotated[
    bool,
    Query(description="Without the patient: PS3.15 basic profile, pixels outside the fan black."),
]


def result_routes(store: ClipStore) -> APIRouter:
    """The routes of one store."""
    router = APIRouter(prefix="/v1/clips", tags=["clips"], responses=PROBLEMS)
    add_objects(router, store)
    add_views(router, store)
    add_tables(router, store)
    return router


async def _hand_out(
    store: ClipStore, clip: str, name: str, kind: str, *, deidentify: bool = False
) -> PartedFile:
    chosen = anonymous_name(name) if deidentify else name
    path = await store.artefact(clip, chosen)
    # The file's name is the kind's: what clients store under it must not name a patient.
    return PartedFile(path, media_type=kind, filename=chosen, content_disposition_type="inline")


def add_objects(router: APIRouter, store: ClipStore) -> None:
    """DICOM objects, as a PACS takes them."""

    @router.get("/{clip}/seg.dcm", response_class=PartedFile)
    async def segmentation(
        clip: str,
        type: Annotated[
            Literal["binary", "labelmap"],
            Query(description="One bit a pixel for every reader, or small for newer readers."),
        ] = "binary",
        deidentify: Deidentify = False,
    ) -> PartedFile:
        """The masks as a DICOM segmentation of the cine."""
        name = "seg.dcm" if type == "binary" else "seg-labelmap.dcm"
        return await _hand_out(store, clip, name, DICOM, deidentify=deidentify)

    @router.get("/{clip}/sr.dcm", response_class=PartedFile)
    async def report(
        clip: str,
        template: Annotated[
            Literal["5300", "1500"],
            Query(description="TID 5300 for echo reporting, TID 1500 with every beat."),
        ] = "5300",
        deidentify: Deidentify = False,
    ) -> PartedFile:
        """The figures as a DICOM structured report."""
        name = "sr.dcm" if template == "5300" else "sr-1500.dcm"
        return await _hand_out(store, clip, name, DICOM, deidentify=deidentify)

    @router.get("/{clip}/secondary-capture.dcm", response_class=PartedFile)
    async def capture(clip: str, deidentify: Deidentify = False) -> PartedFile:
        """The overlay as a DICOM multi-frame secondary capture."""
        name = "secondary-capture.dcm"
        return await _hand_out(store, clip, name, DICOM, deidentify=deidentify)


def add_views(router: APIRouter, store: ClipStore) -> None:
    """What people look at."""

    @router.get("/{clip}/overlay.mp4", response_class=PartedFile)
    async def overlay(clip: str, deidentify: Deidentify = False) -> PartedFile:
        """The clip with its outlines, running volume curve and EF."""
        return await _hand_out(store, clip, "overlay.mp4", "video/mp4", deidentify=deidentify)

    @router.get("/{clip}/still.png", response_class=PartedFile)
    async def still(clip: str, deidentify: Deidentify = False) -> PartedFile:
        """The overlay's picture at end diastole."""
        return await _hand_out(store, clip, "still.png", "image/png", deidentify=deidentify)

    @router.get("/{clip}/report.html", response_class=PartedFile)
    async def page(clip: str, deidentify: Deidentify = False) -> PartedFile:
        """A report for people: one page that needs no server and prints well."""
        kind = "text/html; charset=utf-8"
        answer = await _hand_out(store, clip, "report.html", kind, deidentify=deidentify)
        answer.headers["Content-Security-Policy"] = ALONE
        return answer


def add_tables(router: APIRouter, store: ClipStore) -> None:
    """What programs read; none of it tells who the patient is."""

    @router.get("/{clip}/frames.csv", response_class=PartedFile)
    async def table(clip: str) -> PartedFile:
        """One line a frame: time, area, length, volume, quality, ED and ES."""
        return await _hand_out(store, clip, "frames.csv", "text/csv; charset=utf-8")

    @router.get("/{clip}/masks.json", response_class=PartedFile)
    async def coco(clip: str) -> PartedFile:
        """The masks as COCO run lengths."""
        return await _hand_out(store, clip, "masks.json", "application/json")


def schema_routes() -> APIRouter:
    """The schema of a clip result."""
    router = APIRouter(tags=["clips"])
    schema: dict[str, Any] = clip_result_schema()

    @router.get(ADDRESS)
    async def clip_result() -> JSONResponse:
        """The clip result as JSON Schema 2020-12."""
        return JSONResponse(schema, media_type="application/schema+json")

    return router
