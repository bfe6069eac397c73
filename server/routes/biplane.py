"""``/v1/biplane``: one measurement from a four- and a two-chamber clip."""

import asyncio
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from server.biplane import biplane_of
from server.clips import ClipStore
from server.errors import BadRequestError
from server.routes.clips import PROBLEMS


class BiplaneRequest(BaseModel):
    """Two clips that are done."""

    model_config = ConfigDict(extra="forbid")

    a4c: str = Field(description="Name of the four-chamber clip.")
    a2c: str = Field(description="Name of the two-chamber clip, of the same heart.")


def biplane_routes(store: ClipStore) -> APIRouter:
    """The route over one store."""
    router = APIRouter(prefix="/v1/biplane", tags=["clips"], responses=PROBLEMS)

    @router.post("")
    async def biplane(wanted: BiplaneRequest) -> dict[str, Any]:
        """Volumes and EF by biplane disks, with what the views disagree in.

        Nothing tells whether both clips show one person: that is for the caller to know.
        """
        if wanted.a4c == wanted.a2c:
            raise BadRequestError("a4c and a2c name one clip; a biplane measurement needs two")
        a4c, a2c = await store.result(wanted.a4c), await store.result(wanted.a2c)
        return await asyncio.to_thread(biplane_of, a4c, a2c)

    return router
