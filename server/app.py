"""``create_app``: the routes of a server, its start and stop, and how errors reach the wire."""

import asyncio
import logging
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

from fastapi import Depends, FastAPI, Request, Response, WebSocket
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match, Mount
from starlette.types import Scope

from model import EchoError, load_predictor
from server.access import Pacer, TicketOffice, Tickets
from server.clips import ClipStore
from server.engine import Engine
from server.errors import (
    BadRequestError,
    DrainingError,
    EngineError,
    MethodError,
    NotFoundError,
    SettingsError,
    SocketGoneError,
    WireCodes,
    known_codes,
)
from server.export.words import known_reasons
from server.guard import Guard, problem
from server.ingest import read_sample
from server.keys import load_keys
from server.metrics import Metrics
from server.pace import expected_fps
from server.recording import open_recorder
from server.roster import Roster
from server.routes.access import access_routes
from server.routes.biplane import biplane_routes
from server.routes.clips import clip_routes
from server.routes.dicomweb import dicomweb_routes
from server.routes.edits import edit_routes
from server.routes.intake import known_query
from server.routes.operation import operation_routes
from server.routes.page import mount_page, sample_routes
from server.routes.pictures import picture_routes
from server.routes.results import result_routes, schema_routes
from server.routes.studies import study_routes
from server.schedule import Lane
from server.settings import Settings
from server.snapshots import Keeper, Seal, open_store
from server.stream import FrameSocket, serve

if TYPE_CHECKING:
    from fastapi.telemetry import TelemetryConfig

    from server.cstore.receiver import Receiver
    from server.tracing import Tracing

logger = logging.getLogger(__name__)

ABOUT = (
    "Real-time echocardiography: masks, volumes and ejection fraction of the left ventricle. "
    "**Research use only.** Frames are streamed to the websocket `/v1/stream` (subprotocol "
    "`gdkvm.v1`); whole clips are uploaded to `/v1/clips`."
)
LAG_PERIOD_S = 0.05

NO_TELEMETRY: "TelemetryConfig" = {
    "tracing": False, "metrics": False, "logs": False, "auto_configure": False,
}  # fmt: skip
"""FastAPI's own would tell paths and exceptions; what leaves this machine is said in tracing.py."""

METHODS = ("GET", "POST", "PATCH", "DELETE")
"""What some path here takes; HEAD is answered as GET is."""

MIN_WORKERS = 2
"""While the network reads one frame, another one is decoded or measured."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a running server is made of."""

    settings: Settings
    metrics: Metrics
    engine: Engine
    roster: Roster
    store: ClipStore | None
    keeper: Keeper | None
    receiver: "Receiver | None"
    tracing: "Tracing | None"


def create_app(settings: Settings, tickets: TicketOffice | None = None) -> FastAPI:
    """Load the weights and put a server together.

    Args:
        settings: of this server.
        tickets: for browsers; None where this server alone issues and takes them.

    Raises:
        EchoError: no such model, damaged weights, or keys that cannot be read.
    """
    parts = build(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        watch = asyncio.create_task(watch_lag(parts.metrics))
        if parts.store is not None:
            parts.store.start()
        if parts.receiver is not None:
            parts.receiver.start()
        yield
        if parts.receiver is not None:
            await asyncio.to_thread(parts.receiver.close)
        if parts.store is not None:
            parts.store.leave()
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch
        parts.roster.close()
        if parts.keeper is not None:
            await asyncio.to_thread(parts.keeper.close)
        if parts.store is not None:
            await asyncio.to_thread(parts.store.close)
        await asyncio.to_thread(parts.engine.close)
        if parts.tracing is not None:
            await asyncio.to_thread(parts.tracing.close)

    app = FastAPI(
        title="GDKVM Live",
        version=version("gdkvm-live"),
        description=ABOUT,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        telemetry=NO_TELEMETRY,
    )
    app.state.parts = parts
    tickets = tickets or Tickets()
    ring = load_keys(settings.api_keys_file)
    pacer = Pacer(share=parts.roster.share_of)
    app.add_middleware(Guard, keys=ring, tickets=tickets, metrics=parts.metrics, pacer=pacer)
    add_error_answers(app, parts.metrics)
    app.include_router(access_routes(tickets))
    app.include_router(operation_routes(parts.engine, parts.roster, parts.metrics))
    if parts.store is not None:
        add_clips(app, parts.store, settings)
    app.include_router(schema_routes())
    app.include_router(sample_routes(read_sample()))
    add_stream(app, parts)
    mount_page(app)
    return app


def add_clips(app: FastAPI, store: ClipStore, settings: Settings) -> None:
    """Answer all that has to do with clips."""
    for router in (
        clip_routes(store, settings.upload_max_bytes),
        picture_routes(store),
        edit_routes(store),
        biplane_routes(store),
        result_routes(store),
        study_routes(store, settings.study_max_bytes),
    ):
        app.include_router(router, dependencies=[Depends(known_query)])
    app.include_router(dicomweb_routes(store, settings.study_max_bytes, settings.upload_max_bytes))


def build(settings: Settings) -> Parts:
    """Load the network, test it, and make the rooms for sessions and clips."""
    metrics = Metrics()
    metrics.foresee(known_codes(), known_reasons())
    tracing = None if settings.trace_frames is None else open_traces(settings.trace_frames)
    predictor = load_predictor(
        settings.model,
        backend=settings.backend,
        threads=settings.threads,
        streams=settings.streams,
        precision=settings.precision,
    )
    model, choice = predictor.model, predictor.choice
    streams = choice.streams if choice else settings.streams or 1
    workers = max(streams, MIN_WORKERS)
    measured_fps = choice and choice.fps and expected_fps(choice.fps, streams, workers)
    capacity_fps = settings.capacity_fps or measured_fps or math.inf
    engine = Engine({model.name: predictor}, workers, metrics, capacity_fps)
    metrics.build.labels(version("gdkvm-live"), model.name, model.version).set(1)
    engine.self_test()
    logger.info(
        "model loaded",
        extra={
            "model": model.name,
            "model_version": model.version,
            "backend": choice and choice.why,
            "precision": predictor.precision,
            "capacity_fps": None if math.isinf(capacity_fps) else round(capacity_fps, 1),
        },
    )
    keeper = open_keeper(settings, metrics)
    roster = Roster(settings, engine, metrics, keeper, open_recorder(settings), tracing)
    store = receiver = None
    if settings.clips:
        store = ClipStore(settings, engine.predictor(None, Lane.CLIP), metrics, tracing)
        receiver = open_receiver(settings, store, metrics)
    return Parts(settings, metrics, engine, roster, store, keeper, receiver, tracing)


def open_traces(one_in: int) -> "Tracing":
    """Begin to trace, which takes an extra.

    Raises:
        SettingsError: it is not installed, or the variables of OpenTelemetry make no sense.
    """
    try:
        from server.tracing import open_tracing
    except ImportError as error:
        raise SettingsError(
            f"GDKVM_TRACE_FRAMES needs {error.name}: pip install 'gdkvm-live[tracing]'"
        ) from error
    return open_tracing(one_in)


def open_receiver(settings: Settings, store: ClipStore, metrics: Metrics) -> "Receiver | None":
    """Bind the port that a PACS sends to, where one is set.

    Raises:
        SettingsError: it cannot be bound.
    """
    if settings.dicom_port is None:
        return None
    # Only now: it would make every start slower, and a cart has no need of it.
    from server.cstore.receiver import Receiver

    return Receiver(settings, store, metrics)


def open_keeper(settings: Settings, metrics: Metrics) -> Keeper | None:
    """Open the store of snapshots; None where a cut ends a session anyway.

    Raises:
        StoreError: it cannot be opened.
        SettingsError: a key that is none.
    """
    if settings.resume_s == 0:
        return None
    secret = settings.snapshot_key
    seal = Seal(None if secret is None else secret.get_secret_value())
    return Keeper(open_store(settings.snapshot_store), seal, metrics)


async def watch_lag(metrics: Metrics) -> None:
    """Measure for ever how late the event loop wakes up."""
    loop = asyncio.get_running_loop()
    while True:
        due_s = loop.time() + LAG_PERIOD_S
        await asyncio.sleep(LAG_PERIOD_S)
        metrics.loop_lag_s.observe(max(0.0, loop.time() - due_s))


def add_stream(app: FastAPI, parts: Parts) -> None:
    """Answer ``/v1/stream``."""

    @app.websocket("/v1/stream")
    async def stream(websocket: WebSocket) -> None:
        socket = FrameSocket(websocket, parts.settings, parts.metrics)
        try:
            await serve(socket, await socket.hello(), parts.roster, parts.engine)
        except SocketGoneError:
            return
        except DrainingError as error:
            await socket.close(WireCodes.close_code(error))
        except EchoError as error:
            parts.metrics.errors.labels(error.code).inc()
            logger.warning("session refused or broken off", extra={"code": error.code})
            await socket.refuse(error)
        finally:
            await socket.close()


def add_error_answers(app: FastAPI, metrics: Metrics) -> None:
    """Make every refusal a problem document."""

    def answer(error: EchoError) -> Response:
        metrics.errors.labels(error.code).inc()
        return problem(error)

    @app.exception_handler(EchoError)
    async def ours(_: Request, error: EchoError) -> Response:
        return answer(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return answer(BadRequestError(f"{place}: {first['msg']}"))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        if error.status_code in (404, 405):
            allowed = ", ".join(methods_of(app, request.scope)) or (error.headers or {}).get(
                "Allow"
            )
            if allowed and request.method not in allowed.split(", "):
                refusal = answer(MethodError(f"this path takes {allowed}, not {request.method}"))
                refusal.headers["Allow"] = allowed
                return refusal
            return answer(NotFoundError("nothing is here; /docs lists what there is"))
        return answer(BadRequestError(str(error.detail)))

    @app.exception_handler(Exception)
    async def unexpected(_: Request, __: Exception) -> Response:
        # The server that runs this app logs the exception.
        return answer(EngineError("this request failed; the fault is ours"))


def methods_of(app: FastAPI, scope: Scope) -> list[str]:
    """The methods that a path takes; none where nothing is.

    Source:
        RFC 9110 section 15.5.6.
    """
    routes = [each for each in app.routes if not isinstance(each, Mount)]
    found = [
        method
        for method in METHODS
        if any(each.matches({**scope, "method": method})[0] is Match.FULL for each in routes)
    ]
    return ["GET", "HEAD", *found[1:]] if "GET" in found else found
