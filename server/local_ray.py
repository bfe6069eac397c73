"""Ray on this machine alone: it tells nobody what it does, and obeys nobody but its own process."""

import logging
import os
import secrets

TOKEN_BYTES = 32


def close_ray_to_strangers() -> None:
    """Call it before Ray is first imported, since that reads its environment once.

    Ray listens on every address, and whoever may talk to it can run code: so its parts ask each
    other for a token that only they and this process's children know. What is set already stays.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    if os.environ.setdefault("RAY_AUTH_MODE", "token") == "token":
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(TOKEN_BYTES))


def start_local_ray(cpus: int, store_bytes: int | None = None) -> None:
    """Start Ray for as long as this process lives.

    Args:
        cpus: processors that it may give away.
        store_bytes: memory for objects; None for Ray's own choice.
    """
    import ray

    ray.init(
        "local",
        num_cpus=cpus,
        object_store_memory=store_bytes,
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )
