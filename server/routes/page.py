"""The page at ``/`` and the sample clip that it plays."""

from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Response
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from server.errors import NotFoundError
from server.ingest import SampleClip
from server.routes.intake import FrameIndex

WEB = Path(__file__).resolve().parents[2] / "clients" / "web"
"""Beside the packages, in a checkout as in an installed wheel."""

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "worker-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "media-src 'self' blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""What the page may load and where it may send: this server alone, and no script within a page.

Source:
    W3C, Content Security Policy Level 3.
"""

CACHE = {"Cache-Control": "max-age=3600"}

NAMED = {"docs": "docs.html"}
"""Pages with an address of their own."""


def sample_routes(sample: SampleClip) -> APIRouter:
    """The sample clip, frame by frame as JPEG."""
    router = APIRouter(include_in_schema=False)

    @router.get("/sample.json")
    async def facts() -> dict[str, Any]:
        """How many frames there are, how large, and how fast they follow each other."""
        return {
            "frames": len(sample.jpegs),
            "size": sample.size,
            "frame_time_ms": sample.frame_time_ms,
            "spacing_mm": sample.spacing_mm,
            "view": sample.view,
            "region": None,
        }

    @router.get("/sample/{index}.jpg")
    async def frame(index: FrameIndex) -> Response:
        """One frame."""
        if index >= len(sample.jpegs):
            raise NotFoundError(f"the sample clip has {len(sample.jpegs)} frames")
        return Response(sample.jpegs[index], media_type="image/jpeg", headers=CACHE)

    return router


class PageFiles(StaticFiles):
    """The page's files, each under the page's policy and asked for anew after an upgrade."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Answer with one file; what is not here takes no method at all."""
        response = await super().get_response(NAMED.get(path, path), {**scope, "method": "GET"})
        if scope["method"] != "GET":
            raise HTTPException(405, headers={"Allow": "GET, HEAD"})
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["Cache-Control"] = "no-cache"
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


def mount_page(app: FastAPI) -> None:
    """Serve the page's files where no route answers."""
    app.mount("/", PageFiles(directory=WEB, html=True), name="page")
