"""The pictures of a clip and their outlines, for a page that shows them frame by frame."""

import asyncio
import zipfile
from pathlib import Path
from typing import Literal

from fastapi import APIRouter, Response

from server.clips import ClipStore
from server.errors import NotFoundError
from server.export.pictures import OUTLINES, picture_name
from server.routes.clips import PROBLEMS
from server.routes.intake import FrameIndex

PICTURES: Literal["pictures.zip"] = "pictures.zip"
"""Name of the artefact that both routes read."""

PRIVATE = {"Cache-Control": "private, max-age=3600"}
"""A picture never changes; outlines do, where somebody corrects one."""


def picture_routes(store: ClipStore) -> APIRouter:
    """The routes of one store."""
    router = APIRouter(prefix="/v1/clips", tags=["clips"], responses=PROBLEMS)

    @router.get("/{clip}/frames/{index}.jpg")
    async def picture(clip: str, index: FrameIndex) -> Response:
        """One frame as it was measured, a grey JPEG of its own size."""
        archive = await store.artefact(clip, PICTURES)
        jpeg = await asyncio.to_thread(_read, archive, picture_name(index))
        return Response(jpeg, media_type="image/jpeg", headers=PRIVATE)

    @router.get("/{clip}/outlines.json")
    async def outlines(clip: str) -> Response:
        """Per frame `seq` and `contours`: closed outlines of (row, column) points by structure."""
        archive = await store.artefact(clip, PICTURES)
        text = await asyncio.to_thread(_read, archive, OUTLINES)
        return Response(text, media_type="application/json", headers={"Cache-Control": "no-store"})

    return router


def _read(path: Path, name: str) -> bytes:
    with zipfile.ZipFile(path) as archive:
        try:
            return archive.read(name)
        except KeyError as error:
            raise NotFoundError("the clip has no such frame") from error
