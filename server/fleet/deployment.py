"""The fleet as Ray Serve knows it: `build` for a config file, `run_fleet` for one machine."""

import asyncio
import logging
import signal
from typing import Any

import ray
from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, HTTPOptions

from server.fleet.autoscaler import FleetPolicy
from server.fleet.replica import Ingress
from server.fleet.shape import FleetShape, fleet_settings
from server.local_ray import start_local_ray
from server.settings import Settings

NAME, APPLICATION = "live", "gdkvm"

OTHER_REQUESTS = 64
"""Requests besides sessions that a replica works on at once: probes, metrics, pages."""

LOOK_BACK_S = 5.0
STOP_SLACK_S = 5.0
HEALTH_S = 2.0


def build(shape: FleetShape) -> serve.Application:
    """The application for ``import_path: server.fleet.deployment:build``."""
    scaling = AutoscalingConfig(
        min_replicas=shape.min_replicas,
        max_replicas=max(shape.min_replicas, shape.max_replicas),
        initial_replicas=shape.min_replicas,
        look_back_period_s=LOOK_BACK_S,
        metrics_interval_s=1.0,
        upscale_delay_s=0.0,
        downscale_delay_s=0.0,
        policy=AutoscalingPolicy(policy_function=FleetPolicy, policy_kwargs=shape.policy),
    )
    # Its types tell of the decorator's form alone.
    deploy: Any = serve.deployment
    deployment = deploy(
        Ingress,
        name=NAME,
        autoscaling_config=scaling,
        ray_actor_options={"num_cpus": shape.cpus, "num_gpus": shape.gpus},
        max_ongoing_requests=shape.max_sessions + OTHER_REQUESTS,
        graceful_shutdown_wait_loop_s=0.2,
        graceful_shutdown_timeout_s=2 * shape.drain_s + STOP_SLACK_S,
        health_check_period_s=HEALTH_S,
    )
    application: serve.Application = deployment.bind(shape.clip_share)
    return application


async def run_fleet(settings: Settings, replicas: tuple[int, int], cpus: float) -> None:
    """Serve with replicas on this machine until told to stop; SIGHUP replaces every replica.

    Args:
        settings: of every replica; host and port are the fleet's.
        replicas: fewest and most.
        cpus: processors of each.

    Raises:
        SettingsError: replicas could not share sessions with these.
    """
    fleet_settings(settings)
    shape = FleetShape(
        min_replicas=replicas[0],
        max_replicas=max(replicas),
        cpus=cpus,
        max_sessions=settings.max_sessions,
        drain_s=settings.drain_s,
        # Every replica is on this machine.
        clip_share=settings.clip_share or str(settings.clip_dir / "share"),
    )
    loop = asyncio.get_running_loop()
    told: asyncio.Queue[signal.Signals] = asyncio.Queue()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, told.put_nowait, number)
    await asyncio.to_thread(_start, settings, shape)
    try:
        while True:
            await asyncio.to_thread(_deploy, shape)
            if await told.get() is not signal.SIGHUP:
                return
    finally:
        await asyncio.to_thread(_stop)


def _start(settings: Settings, shape: FleetShape) -> None:
    # A replica that starts needs a place beside the one that it replaces.
    start_local_ray(int((shape.max_replicas + 1) * shape.cpus) + 1)
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    serve.start(http_options=HTTPOptions(host=settings.host, port=settings.port))


def _deploy(shape: FleetShape) -> None:
    """Put new replicas in the place of those before, if any, and wait until all serve."""
    serve.run(build(shape), name=APPLICATION, route_prefix="/")


def _stop() -> None:
    # Replicas first, so that sessions leave in order while the proxies still carry their words.
    serve.delete(APPLICATION)
    serve.shutdown()
    ray.shutdown()
