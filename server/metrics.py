"""Every metric that the server shows at ``/metrics``, in base units, without session or patient."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

STAGES = ("queue", "decode", "infer", "measure", "total")

STAGE_EDGES_S = (
    0.0005, 0.001, 0.002, 0.004, 0.008, 0.0125, 0.0167, 0.025, 0.0333, 0.05, 0.1, 0.25, 1.0,
)  # fmt: skip
"""Edges at one frame period of 60 and of 30 frames per second, so that a bar on either is exact."""

ANSWERS = ("result", "dropped", "repeated")
DROP_REASONS = ("replaced", "repeated", "no_picture")
STARTS = ("new", "resumed")
EF_STATES = ("measured", "pending", "withheld")
CLIP_STATES = ("done", "failed")
DOORS = ("http", "stow", "cstore")
SNAPSHOT_ENDS = ("saved", "fenced", "failed")
"""What counters count apart; each begins at 0, or its first count would be no increase."""

LAG_EDGES_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5)


class Metrics:
    """One server's metrics; built once, handed down."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.stage_s = Histogram(
            "gdkvm_stage_seconds",
            "Time of one frame in each stage.",
            ["stage"],
            buckets=STAGE_EDGES_S,
            registry=self.registry,
        )
        self.frames = self._counter(
            "gdkvm_frames", "Frames answered, by answer.", "answer", ANSWERS
        )
        self.answers = {each: self.frames.labels(each) for each in ANSWERS}
        self.sessions_opened = self._counter(
            "gdkvm_sessions_opened", "Sessions, by start.", "start", STARTS
        )
        self.drops = self._counter(
            "gdkvm_frames_dropped",
            "Frames answered without a mask, by reason.",
            "reason",
            DROP_REASONS,
        )
        self.ejection_fractions = self._counter(
            "gdkvm_ejection_fractions",
            "EF at the end of sessions and clips, by state.",
            "state",
            EF_STATES,
        )
        self.withheld = self._counter(
            "gdkvm_ef_withheld", "EF not given at the end, by each of its reasons.", "reason"
        )
        self.clip_failures = self._counter(
            "gdkvm_clip_failures", "Clips that could not be read or worked on, by code.", "code"
        )
        self.errors = self._counter("gdkvm_errors", "Errors told to clients, by code.", "code")
        self.clips = self._counter("gdkvm_clips", "Clips finished, by end.", "state", CLIP_STATES)
        self.clips_received = self._counter(
            "gdkvm_clips_received", "Clips received whole, by way in.", "door", DOORS
        )
        self.clip_duplicates = Counter(
            "gdkvm_clip_duplicates",
            "Clips answered from the store.",
            registry=self.registry,
        )
        self.clip_store_bytes = Gauge(
            "gdkvm_clip_store_bytes", "Size of all clips kept.", registry=self.registry
        )
        self.snapshots = self._counter(
            "gdkvm_snapshots", "Snapshots of sessions, by end.", "end", SNAPSHOT_ENDS
        )
        self.snapshot_s = Histogram(
            "gdkvm_snapshot_seconds",
            "Time to seal and store one snapshot.",
            buckets=STAGE_EDGES_S,
            registry=self.registry,
        )
        self.sessions = self._gauge("gdkvm_sessions", "Sessions held now.", "phase")
        self.jobs_waiting = self._gauge("gdkvm_jobs_waiting", "Jobs waiting for a worker.", "kind")
        self.ready = Gauge("gdkvm_ready", "1 while /readyz says yes.", registry=self.registry)
        self.build = self._gauge(
            "gdkvm_build_info", "What runs; always 1.", "version", "model", "model_version"
        )
        self.loop_lag_s = Histogram(
            "gdkvm_event_loop_lag_seconds",
            "How late the event loop woke up.",
            buckets=LAG_EDGES_S,
            registry=self.registry,
        )
        self._began_s: dict[object, float] = {}
        oldest = self._gauge("gdkvm_oldest_frame_seconds", "Age of the oldest frame under way.")
        oldest.set_function(self._oldest_s)
        self._stages = {stage: self.stage_s.labels(stage) for stage in STAGES}
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)

    def _counter(
        self, name: str, description: str, label: str, known: Iterable[str] = ()
    ) -> Counter:
        counter = Counter(name, description, [label], registry=self.registry)
        for value in known:
            counter.labels(value)
        return counter

    def foresee(self, codes: Iterable[str], reasons: Iterable[str]) -> None:
        """Let what may once be counted begin at 0.

        Args:
            codes: of errors and failures.
            reasons: why an EF may be withheld.
        """
        for code in codes:
            self.errors.labels(code)
            self.clip_failures.labels(code)
        for reason in reasons:
            self.withheld.labels(reason)

    def _gauge(self, name: str, description: str, *labels: str) -> Gauge:
        return Gauge(name, description, list(labels), registry=self.registry)

    def observe_stage(self, stage: str, seconds: float) -> None:
        """Count one frame's time in one stage."""
        self._stages[stage].observe(seconds)

    def answered(self, edge_s: float) -> tuple[float, float]:
        """Frames answered with a mask so far, and those of them within a time.

        Args:
            edge_s: one of STAGE_EDGES_S.
        """
        labels = {"stage": "total"}
        count = self.registry.get_sample_value("gdkvm_stage_seconds_count", labels)
        within = self.registry.get_sample_value(
            "gdkvm_stage_seconds_bucket", labels | {"le": str(edge_s)}
        )
        return count or 0.0, within or 0.0

    @contextmanager
    def frame_under_way(self) -> Iterator[None]:
        """Let the age of a frame show until it is answered; used from the event loop alone."""
        token = object()
        self._began_s[token] = time.monotonic()
        try:
            yield
        finally:
            del self._began_s[token]

    def _oldest_s(self) -> float:
        # They are in the order in which they began.
        began_s = next(iter(list(self._began_s.values())), None)
        return 0.0 if began_s is None else time.monotonic() - began_s

    def count_ef(self, state: str, reasons: Iterable[str]) -> None:
        """Count the EF that a session or clip ended with, and why where there is none."""
        self.ejection_fractions.labels(state).inc()
        if state != "measured":
            for reason in reasons:
                self.withheld.labels(reason).inc()

    def to_text(self) -> bytes:
        """In Prometheus' text format; milliseconds of work, on any thread."""
        return generate_latest(self.registry)
