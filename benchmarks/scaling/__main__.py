"""The figures of docs/scaling.md.

    python -m benchmarks.scaling costs [--frames 600] [--redis redis://127.0.0.1:6379/0]
    python -m benchmarks.scaling late [--cores 2]
    python -m benchmarks.scaling morning [--sessions 1000] [--cores 2] [--start 15]

`costs` measures a frame and a snapshot on this machine; `late` simulates frames on one replica;
`morning` simulates a fleet from 7:00 to 13:00, also when a quarter of it is lost at 10:00.
"""

import argparse
from statistics import mean

import numpy as np

from benchmarks.scaling.costs import measure, quantiles
from benchmarks.scaling.frames import late_share
from benchmarks.scaling.morning import HOUR_S, Morning
from server.fleet.scaling import Policy

SEEDS = range(5)
RACK = (3 * HOUR_S, 0.25)
ON_TIME = 0.01
"""Share of late frames that a replica's number of places may mean."""


def tell_costs(frames: int, store: str | None) -> None:
    """Measure and print."""
    costs = measure(frames, store)
    p5, p50, p95, p99 = quantiles(costs.frame_ms)
    print(f"frame: {p50:.1f} ms of a processor (5 %: {p5:.1f}, 95 %: {p95:.1f}, 99 %: {p99:.1f})")
    steps = np.percentile(costs.frame_ms, np.linspace(0, 100, 21))
    print("every 5th percentile:", ", ".join(f"{step:.2f}" for step in steps))
    print(f"wire: {costs.in_bytes:.0f} bytes in, {costs.out_bytes:.0f} out")
    print(
        f"snapshot: {costs.snapshot_bytes:.0f} bytes, {costs.snapshot_ms:.2f} ms to make and seal"
    )
    if costs.redis_ms is not None:
        print(f"Redis: {costs.redis_ms:.2f} ms of a processor each")


def tell_late(cores: int) -> list[float]:
    """Simulate one replica with more and more sessions; returns its table up to its places."""
    table = [0.0]
    for sessions in range(1, 100):
        share = mean(late_share(sessions, cores, seed=seed) for seed in SEEDS)
        print(f"{sessions} sessions on {cores} processors: {100 * share:.2f} % late")
        if share > ON_TIME:
            break
        table.append(share)
    return table


def tell_morning(sessions: int, cores: int, start_s: float) -> None:
    """Simulate mornings and print a table."""
    late = tell_late(cores)
    print(f"\n{len(late) - 1} places a replica; at most about {sessions} sessions at once")
    steady = Policy()
    restless = Policy(full=0.75, empty=0.74, calm_s=0.0)
    tight, roomy = Policy(full=0.9, empty=0.7), Policy(full=0.6, empty=0.4)
    print(
        "| policy | rack lost | replicas | changes | refused | lost | moved | p99 to go on | ",
        end="",
    )
    print("late frames | used |\n|" + " --- |" * 10)
    for name, policy in (
        ("default", steady),
        ("full 0.9, empty 0.7", tight),
        ("full 0.6, empty 0.4", roomy),
        ("no hysteresis", restless),
    ):
        for loss in (None, RACK):
            found = Morning(policy, late, peak_sessions=sessions, start_s=start_s, loss=loss).run()
            moved = f"{np.percentile(found.moved_s, 99):.1f} s" if found.moved_s else "none"
            used = found.live_s / (found.replica_s * (len(late) - 1))
            print(
                f"| {name} | {'yes' if loss else 'no'} | {found.most} | {found.changes} "
                f"| {found.refused} of {found.began} | {found.lost} | {len(found.moved_s)} "
                f"| {moved} | {100 * found.late_s / found.live_s:.2f} % | {100 * used:.0f} % |",
                flush=True,
            )


def main() -> None:
    """Do what the first word says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["costs", "late", "morning"])
    parser.add_argument("--frames", type=int, default=600)
    parser.add_argument("--redis")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--start", type=float, default=15.0)
    given = parser.parse_args()
    if given.what == "costs":
        tell_costs(given.frames, given.redis)
    elif given.what == "late":
        tell_late(given.cores)
    else:
        tell_morning(given.sessions, given.cores, given.start)


if __name__ == "__main__":
    main()
