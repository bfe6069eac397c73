"""What operators and orchestrators ask: alive, ready, metrics, models, sessions."""

import asyncio
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from server.asyncapi import asyncapi_document
from server.engine import Engine
from server.metrics import Metrics
from server.roster import Roster


def operation_routes(engine: Engine, roster: Roster, metrics: Metrics) -> APIRouter:
    """The routes of one server."""
    router = APIRouter(tags=["operation"])

    @router.get("/livez")
    async def livez() -> dict[str, str]:
        """200 while the process answers."""
        return {"status": "alive"}

    def readiness() -> str:
        if roster.is_draining:
            return "draining"
        return "ready" if engine.is_alive else "engine_dead"

    # Whoever reads the metrics is told as it is then, whether or not anybody asks /readyz.
    metrics.ready.set_function(lambda: readiness() == "ready")

    @router.get("/readyz")
    async def readyz(response: Response) -> dict[str, str]:
        """200 while weights are loaded, the self-test mask matches, and sessions are admitted."""
        status = readiness()
        response.status_code = 200 if status == "ready" else 503
        return {"status": status}

    @router.get("/metrics")
    async def prometheus() -> Response:
        """For Prometheus, in its text format."""
        text = await asyncio.to_thread(metrics.to_text)
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    @router.get("/v1/models")
    async def models() -> list[dict[str, Any]]:
        """The models that are served, the default one first."""
        return [
            {
                "name": each.model.name,
                "version": each.model.version,
                "sha256": each.model.sha256,
                "licence": each.model.licence,
                "network_size": each.model.network_size,
                "backend": each.backend.name,
                "precision": each.precision,
            }
            for each in engine.predictors.values()
        ]

    @router.get("/v1/sessions")
    async def sessions() -> list[dict[str, Any]]:
        """The sessions held now, live or parked; no names of patients, no tokens."""
        return roster.listing()

    @router.get("/asyncapi.json")
    async def asyncapi() -> dict[str, Any]:
        """The websocket `/v1/stream` as an AsyncAPI 3 document."""
        return asyncapi_document(version("gdkvm-live"))

    return router
