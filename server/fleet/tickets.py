"""Tickets that every replica of a fleet takes, whichever issued them."""

import asyncio
import json
import secrets

import redis

from server.access import TICKET_S, ticket_hash
from server.errors import StoreError
from server.fleet.board import ANSWER_S
from server.keys import ApiKey

PREFIX = "gdkvm:ticket:"


class SharedTickets:
    """Kept in Redis by their hashes, until they are used or old; no stream waits for Redis."""

    def __init__(self, url: str) -> None:
        """Make ready to connect; nothing is asked yet."""
        self._redis = redis.Redis.from_url(
            url, socket_timeout=ANSWER_S, socket_connect_timeout=ANSWER_S
        )

    async def issue(self, key: ApiKey | None) -> str:
        """Make a ticket that stands for a key.

        Raises:
            StoreError: it cannot be kept.
        """
        ticket = secrets.token_urlsafe(24)
        named = None if key is None else [key.name, key.digest]
        try:
            await asyncio.to_thread(
                self._redis.set,
                PREFIX + ticket_hash(ticket),
                json.dumps(named),
                px=round(1000 * TICKET_S),
            )
        except redis.RedisError as error:
            raise StoreError("no ticket can be kept now; try again") from error
        return ticket

    async def redeem(self, ticket: str) -> ApiKey | None:
        """The name and digest of the key that a ticket stands for, once.

        Returns:
            None for a ticket that is old, used or made up, and where Redis does not answer. What
            the key opens now is for the file of keys to say.
        """
        try:
            kept = await asyncio.to_thread(self._redis.getdel, PREFIX + ticket_hash(ticket))
        except redis.RedisError:
            return None
        named = None if kept is None else json.loads(kept)
        return named and ApiKey(*named)
