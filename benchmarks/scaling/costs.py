"""What one frame and one session cost, measured on this machine."""

import time
from dataclasses import dataclass
from statistics import mean

import numpy as np
import redis

from model import load_predictor
from server.ingest import read_sample
from server.protocol import Codec, FrameHeader, Hello
from server.session import Arrival, Session
from server.snapshots.redis_store import RedisStore
from server.snapshots.seal import Seal
from server.snapshots.store import Lease

WARM_UP = 20
JPEG: Codec = "jpeg"


@dataclass(frozen=True, slots=True)
class Costs:
    """What was measured.

    Attributes:
        frame_ms: processor time of each frame: decoding, network, measurement, encoding.
        in_bytes: of a frame on the wire.
        out_bytes: of its answer.
        snapshot_bytes: of a session in the store, sealed.
        snapshot_ms: processor time to make and seal one.
        redis_ms: processor time of Redis for one, None where none was at hand.
    """

    frame_ms: tuple[float, ...]
    in_bytes: float
    out_bytes: float
    snapshot_bytes: float
    snapshot_ms: float
    redis_ms: float | None


def measure(frames: int, store: str | None) -> Costs:
    """Play the sample clip into one session on one thread.

    Args:
        frames: how many.
        store: address of a Redis to write snapshots to, None for none.
    """
    clip = read_sample()
    session = Session(Hello(size=clip.size, codec=JPEG, fps=30), load_predictor(threads=1))
    frame_ms, in_bytes, out_bytes = [], [], []
    for seq in range(frames + WARM_UP):
        jpeg = clip.jpegs[seq % len(clip.jpegs)]
        header = FrameHeader(JPEG, seq, seq * 33_333, len(jpeg))
        started_s = time.process_time()
        answer = session.answer(Arrival(header, memoryview(jpeg), time.perf_counter()))
        if seq >= WARM_UP:
            frame_ms.append(1000 * (time.process_time() - started_s))
            in_bytes.append(len(jpeg))
            out_bytes.append(sum(map(len, answer.messages)))
    snapshot_bytes, snapshot_ms, redis_ms = _snapshots(session, store)
    return Costs(
        tuple(frame_ms), mean(in_bytes), mean(out_bytes), snapshot_bytes, snapshot_ms, redis_ms
    )


def _snapshots(
    session: Session, store: str | None, count: int = 50
) -> tuple[float, float, float | None]:
    """Bytes of a snapshot, time to make it, and Redis' time to take it."""
    seal = Seal("5a" * 32)
    started_s = time.process_time()
    for _ in range(count):
        blob = session.snapshot()
        assert blob is not None
        sealed = seal.close("name", blob)
    made_ms = 1000 * (time.process_time() - started_s) / count
    if store is None:
        return len(sealed), made_ms, None
    shared, asked = RedisStore(store), redis.Redis.from_url(store)
    before_s = _used_s(asked)
    for number in range(200):
        shared.put(Lease(f"n{number % 20}", 1), sealed, 60)
    redis_ms = 1000 * (_used_s(asked) - before_s) / 200
    shared.close()
    asked.close()
    return len(sealed), made_ms, redis_ms


def _used_s(client: "redis.Redis") -> float:
    told = client.info("cpu")
    assert isinstance(told, dict)
    return float(told["used_cpu_sys"]) + float(told["used_cpu_user"])


def quantiles(values: tuple[float, ...]) -> list[float]:
    """The 5th, 50th, 95th and 99th percentile."""
    return [float(each) for each in np.percentile(values, [5, 50, 95, 99])]
