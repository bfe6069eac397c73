"""One replica of a fleet: the application of one server, and what Ray Serve asks of it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import ray
from fastapi import APIRouter, FastAPI, Response
from ray import serve

from server.app import Parts, create_app
from server.errors import SettingsError
from server.fleet.board import TEXT_TYPE, Board, Posts, keep_posting, shown_of, to_listing, to_text
from server.fleet.leaving import drain_when_told
from server.fleet.pressure import Pressure
from server.fleet.shape import fleet_settings
from server.fleet.tickets import SharedTickets
from server.log import configure_logging
from server.settings import load_settings


class Replica:
    """Wrapped by ``serve.ingress``; made anew in each process of the fleet."""

    def __init__(self, clip_share: str | None = None) -> None:
        """Read the settings of this process.

        Args:
            clip_share: where clips are kept together, if the settings do not say.

        Raises:
            SettingsError: with them a session could not go from one replica to another.
        """
        self._settings = fleet_settings(load_settings(), _assigned_threads(), clip_share)
        configure_logging(self._settings.log_level, self._settings.audit_file)
        self._pressure: Pressure | None = None

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Load the weights and put the application together."""
        store = self._settings.snapshot_store
        app = create_app(self._settings, SharedTickets(store))
        parts: Parts = app.state.parts
        self._pressure = Pressure(parts.roster, parts.metrics)
        name = serve.get_replica_context().replica_tag
        board = Board(store, name)
        parts.roster.held_elsewhere = board.held_by
        # The first route that fits answers: these stand before one server's own.
        app.router.routes[:0] = fleet_routes(board, parts).routes
        is_stopping = find_stop_flag()
        lifespan = app.router.lifespan_context

        @asynccontextmanager
        async def watched(app: FastAPI) -> AsyncIterator[None]:
            async with lifespan(app):
                async with asyncio.TaskGroup() as tasks:
                    watch = tasks.create_task(drain_when_told(is_stopping, parts))
                    show = tasks.create_task(keep_posting(board, parts))
                    yield
                    watch.cancel()
                    show.cancel()
                await asyncio.to_thread(board.leave)

        app.router.lifespan_context = watched
        return app

    def record_autoscaling_stats(self) -> dict[str, float]:
        """What the autoscaler goes by; Ray Serve asks by this name."""
        return {} if self._pressure is None else self._pressure.read()


def fleet_routes(board: Board, parts: Parts) -> APIRouter:
    """What any replica answers for all."""
    router = APIRouter(tags=["operation"])

    @router.get("/metrics")
    def prometheus() -> Response:
        """For Prometheus: every replica's metrics, with its name as ``replica``."""
        return Response(to_text(_posts(board, parts)), media_type=TEXT_TYPE)

    @router.get("/v1/sessions")
    def sessions() -> list[dict[str, Any]]:
        """The sessions of all replicas; no names of patients, no tokens."""
        return to_listing(_posts(board, parts))

    return router


def _posts(board: Board, parts: Parts) -> Posts:
    """What all replicas show, this one as it is now."""
    return {**board.read(), board.replica: shown_of(parts)}


def _assigned_threads() -> int | None:
    given = ray.get_runtime_context().get_assigned_resources().get("CPU", 0)
    return int(given) if given >= 1 else None


def find_stop_flag() -> Callable[[], bool]:
    """How to see that Ray Serve has begun to stop this replica.

    Ray Serve tells the code inside a replica nothing before its requests have ended, and a live
    session is a request that ends when it is told to. So its own note is read.

    Raises:
        SettingsError: this version of Ray keeps it elsewhere.
    """
    worker = ray.get_runtime_context().worker
    inner: Any = getattr(worker.actors.get(worker.actor_id), "_replica_impl", None)
    if not hasattr(inner, "_shutting_down"):
        raise SettingsError(f"replicas cannot be drained with Ray {ray.__version__}")
    return lambda: bool(inner._shutting_down)


Ingress = serve.ingress()(Replica)
"""The class that Ray Serve deploys."""
