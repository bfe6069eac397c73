"""Sessions under blows for as long as one likes: cuts, slow and stalled lines, SIGTERM, kill -9.

    python -m benchmarks.chaos [--rounds 20] [--sessions 4] [--frames 400] [--blows 20] [--seed 0]

Each round starts a server, plays the sample clip once undisturbed, then in several sessions at
once while blows fall and other servers go on. Every mask (by hash), measurement, beat and EF must
be those of the undisturbed session. The seed of a round that fails is printed; `--seed` repeats it.
"""

import argparse
import asyncio
import random
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from server.ingest import read_sample
from tests.e2e.chaos import BLOWS, Blow, Fleet, script, survive


async def play_round(seed: int, sessions: int, frames: int, blows: int) -> Counter[Blow]:
    """One round; returns how often each blow fell."""
    chance = random.Random(seed)
    falling = script(chance, [chance.choice(BLOWS) for _ in range(blows)], frames)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        fleet = Fleet(Path(folder), stack)
        undisturbed, disturbed = await survive(
            read_sample(), fleet, falling, sessions=sessions, count=frames
        )
    for number, found in enumerate(disturbed):
        wrong = [(a, b) for a, b in zip(found, undisturbed, strict=False) if a != b]
        if found != undisturbed:
            raise SystemExit(f"seed {seed}, session {number} differs: {wrong[:1]}")
    return Counter(blow for _, blow in falling)


def main() -> None:
    """Play rounds and say how many sessions, frames and blows there were."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--sessions", type=int, default=4)
    parser.add_argument("--frames", type=int, default=400)
    parser.add_argument("--blows", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    started = time.monotonic()
    fallen: Counter[Blow] = Counter()
    for seed in range(given.seed, given.seed + given.rounds):
        fallen += asyncio.run(play_round(seed, given.sessions, given.frames, given.blows))
        told = ", ".join(f"{fallen[blow]} {blow}" for blow in BLOWS)
        print(f"seed {seed}: equal, {time.monotonic() - started:.0f} s, {told}", flush=True)
    sessions = given.rounds * given.sessions
    print(f"{sessions} sessions of {given.frames} frames, none lost, no answer changed")


if __name__ == "__main__":
    main()
