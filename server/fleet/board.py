"""What every replica shows of itself, in Redis, so that any of them can answer for the fleet."""

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import redis
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Metric, generate_latest

from server.app import Parts
from server.metrics import Metrics

logger = logging.getLogger(__name__)

PREFIX = "gdkvm:replica:"
POST_S = 2.0
"""Between two posts of a replica."""

FORGET_S = 10.0
"""After which a replica that posts nothing is no longer shown."""

ANSWER_S = 2.0
TEXT_TYPE = CONTENT_TYPE_LATEST

Posts = Mapping[str, Mapping[str, Any]]
"""By replica: its ``metrics`` as families, its ``sessions``, live ones by key as ``holders``."""


class Board:
    """One replica's way to post and to read; blocks, so it is called from threads."""

    def __init__(self, url: str, replica: str) -> None:
        """Make ready to connect; nothing is asked yet."""
        self._redis = redis.Redis.from_url(
            url, socket_timeout=ANSWER_S, socket_connect_timeout=ANSWER_S
        )
        self.replica = replica
        self._others: Counter[str] = Counter()

    def post(self, shown: Mapping[str, Any]) -> None:
        """Show this replica as it is; a store that fails is told to the log alone."""
        post = json.dumps(shown)
        try:
            self._redis.set(PREFIX + self.replica, post, px=round(1000 * FORGET_S))
        except redis.RedisError as error:
            logger.error("a replica could not be shown", extra={"why": type(error).__name__})

    def read(self) -> Posts:
        """Every replica that posted lately; none where the store fails."""
        try:
            keys = sorted(self._redis.scan_iter(PREFIX + "*", count=1000))
            found = self._redis.mget(keys) if keys else []
        except redis.RedisError as error:
            logger.error("replicas could not be read", extra={"why": type(error).__name__})
            return {}
        return {
            key.decode().removeprefix(PREFIX): json.loads(post)
            for key, post in zip(keys, found, strict=True)
            if post is not None
        }

    def count_others(self) -> None:
        """Learn how many live sessions each key has on other replicas."""
        others = Counter[str]()
        for replica, post in self.read().items():
            if replica != self.replica:
                others.update(post["holders"])
        self._others = others

    def held_by(self, name: str) -> int:
        """Live sessions of a key on other replicas, as they were lately; asks nobody."""
        return self._others[name]

    def leave(self) -> None:
        """Show this replica no longer."""
        try:
            self._redis.delete(PREFIX + self.replica)
            self._redis.close()
        except redis.RedisError as error:
            logger.error("a replica could not be taken off", extra={"why": type(error).__name__})


def families_of(metrics: Metrics) -> list[list[Any]]:
    """A server's metrics as JSON: name, description, kind, and samples of name, labels, value."""
    return [
        [each.name, each.documentation, each.type, [list(sample[:3]) for sample in each.samples]]
        for each in metrics.registry.collect()
    ]


def to_text(posts: Posts) -> bytes:
    """All replicas' metrics in Prometheus' text format, each sample with its ``replica``."""
    registry = CollectorRegistry()
    registry.register(_Merged(posts))
    return generate_latest(registry)


def to_listing(posts: Posts) -> list[dict[str, Any]]:
    """All replicas' sessions, each with its ``replica``."""
    return [
        {**session, "replica": replica}
        for replica, post in posts.items()
        for session in post["sessions"]
    ]


def shown_of(parts: Parts) -> dict[str, Any]:
    """What this replica shows of itself now; see Posts."""
    return {
        "metrics": families_of(parts.metrics),
        "sessions": parts.roster.listing(),
        "holders": parts.roster.holders(),
    }


async def keep_posting(board: Board, parts: Parts) -> None:
    """Show this replica to the others, and look at them, for ever."""
    while True:
        await parts.roster.release_moved()
        await asyncio.to_thread(board.post, shown_of(parts))
        await asyncio.to_thread(board.count_others)
        await asyncio.sleep(POST_S)


class _Merged:
    """Families of several replicas as one collector."""

    def __init__(self, posts: Posts) -> None:
        self._posts = posts

    def describe(self) -> Iterable[Metric]:
        """Nothing: the registry must not collect to find out."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Each family once."""
        merged: dict[str, Metric] = {}
        for replica, post in self._posts.items():
            for name, description, kind, samples in post["metrics"]:
                family = merged.setdefault(name, Metric(name, description, kind))
                for sample, labels, value in samples:
                    family.add_sample(sample, {**labels, "replica": replica}, value)
        yield from merged.values()
