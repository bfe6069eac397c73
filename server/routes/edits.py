"""``PATCH /v1/clips/{id}/frames/{n}``: a person's outline instead of the network's."""

import re
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from server.clips import ClipStore, Wanted
from server.errors import BadRequestError, BodyTooLargeError
from server.keys import KEY_SLOT
from server.routes.clips import PROBLEMS, tag_of
from server.routes.intake import FrameIndex

MOST_BYTES = 1 << 20
"""Of one correction."""

_TAG = re.compile(r'"r([0-9]{1,9})"')


class EditRequest(BaseModel):
    """One correction."""

    model_config = ConfigDict(extra="forbid", strict=True)

    contours: dict[str, list[list[tuple[FiniteFloat, FiniteFloat]]]] | None = Field(
        description="Closed outlines of (row, column) points in pixels by structure, as in "
        "`outlines.json`; what is not named stays. Null brings the network's own back."
    )
    revision: int | None = Field(
        default=None, ge=0, description="Of the result that was looked at; another is not changed."
    )


_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": EditRequest.model_json_schema()}},
    }
}


def edit_routes(store: ClipStore) -> APIRouter:
    """The route of one store."""
    router = APIRouter(prefix="/v1/clips", tags=["clips"], responses=PROBLEMS)

    @router.patch("/{clip}/frames/{index}", openapi_extra=_BODY)
    async def edit(
        request: Request,
        response: Response,
        clip: str,
        index: FrameIndex,
        if_match: Annotated[
            str | None, Header(description="`ETag` of the result that was looked at.")
        ] = None,
    ) -> dict[str, Any]:
        """Draw outlines in one frame by hand; answers with the clip's result, measured anew.

        Every file of the clip is made anew as well. The result keeps who drew what and when; a
        correction is undone by another one.
        """
        wanted = await _read(request)
        key = request.scope.get(KEY_SLOT)
        result = await store.edit(
            clip,
            Wanted(
                frame=index,
                contours=wanted.contours,
                revisions=_revisions(if_match, wanted.revision),
                who=None if key is None else key.name,
            ),
        )
        response.headers["ETag"] = tag_of(result)
        return result

    return router


async def _read(request: Request) -> EditRequest:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BYTES:
            raise BodyTooLargeError(f"a correction may have {MOST_BYTES} bytes")
    try:
        return EditRequest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(step) for step in first["loc"]) or "body"
        raise BadRequestError(f"{place[:80]}: {first['msg'][:200]}") from error


def _revisions(if_match: str | None, revision: int | None) -> frozenset[int] | None:
    """The revisions that a correction is meant for; None for whichever it is.

    Source:
        RFC 9110 section 13.1.1; a tag that is none of ours matches nothing.
    """
    named = None if revision is None else frozenset([revision])
    if if_match is None or if_match.strip() == "*":
        return named
    tagged = (_TAG.fullmatch(each.strip()) for each in if_match.split(","))
    matched = frozenset(int(match[1]) for match in tagged if match)
    return matched if named is None else matched & named
