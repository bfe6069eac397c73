"""How a replica leaves that is to stop: drained by a fleet that shrinks, or replaced by another."""

import asyncio
import logging
from collections.abc import Callable

from server.app import Parts

logger = logging.getLogger(__name__)

WATCH_S = 0.1
"""Between two looks at whether this replica is to stop."""


async def drain_when_told(is_stopping: Callable[[], bool], parts: Parts) -> None:
    """Wait until this replica is to stop, and let every session leave in order.

    Nobody new is admitted; each session's frame under way is answered, its snapshot stored, its
    client told ``drain``; then nothing is left that Ray Serve would wait for.
    """
    while not is_stopping():  # noqa: ASYNC110 (there is no event to wait for)
        await asyncio.sleep(WATCH_S)
    logger.info("replica drains", extra={"sessions": len(parts.roster)})
    await parts.roster.drain()
