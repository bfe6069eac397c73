"""What it costs that servers keep their clips together, while none is worked on.

    redis-server --port 6390 --save "" &
    python -m benchmarks.shared_clips redis://127.0.0.1:6390/0

The Redis is emptied. Prints one JSON document: processor time of Redis and of the servers, which
are threads of this process here, and what a clip takes in Redis.
"""

import json
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import redis

from server.clips import Job
from server.clips.shared import SharedLedger
from server.settings import Settings

SERVERS, CLIPS, WATCH_S = 10, 1000, 20.0


def busy_s(asked: redis.Redis) -> float:
    """Processor time of Redis so far."""
    told = asked.info("cpu")
    return float(told["used_cpu_user"] + told["used_cpu_sys"])


def watch(asked: redis.Redis) -> tuple[float, float]:
    """Milliseconds a second that Redis and this process are busy."""
    began, own = busy_s(asked), time.process_time()
    time.sleep(WATCH_S)
    scale = 1000 / WATCH_S
    return scale * (busy_s(asked) - began), scale * (time.process_time() - own)


def fill(ledger: SharedLedger, folder: Path) -> None:
    """Write down clips that are done."""
    for number in range(CLIPS):
        job = Job(f"c_{number:016d}", folder, "A4C", time.time(), sha256=64 * "a", maker=70 * "b")
        ledger.reserve(job, 0)
        job.state, job.finished_s = "failed", time.time()
        ledger.save(job)
        ledger.release(job)


def main() -> None:
    """Measure, and print."""
    url = sys.argv[1]
    with redis.Redis.from_url(url) as asked, TemporaryDirectory() as name:
        asked.flushall()
        place = str(Path(name) / "share")
        settings = Settings(
            clip_dir=Path(name) / "own", snapshot_store=url, clip_share=place, max_clips=2 * CLIPS
        )
        idle_ms, _ = watch(asked)
        servers = [SharedLedger(settings, place) for _ in range(SERVERS)]
        for server in servers:
            server.start(lambda _: None, lambda _: None)
        redis_ms, own_ms = watch(asked)
        before = asked.info("memory")["used_memory"]
        fill(servers[0], Path(name))
        after = asked.info("memory")["used_memory"]
        for server in servers:
            server.close()
    found = {
        "redis_ms_per_s_a_server": round((redis_ms - idle_ms) / SERVERS, 2),
        "own_ms_per_s_a_server": round(own_ms / SERVERS, 2),
        "redis_bytes_a_clip": round((after - before) / CLIPS),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
