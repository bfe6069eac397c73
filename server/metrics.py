"""Every metric that the server shows at ``/metrics``, in base units, without session or patient."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

STAGES = ("queue", "decode", "infer", "measure", "total")

STAGE_EDGES_S = (
    0.0005, 0.001, 0.002, 0.004, 0.008, 0.0125, 0.0167, 0.025, 0.0333, 0.05, 0.1, 0.25, 1.0,
)  # fmt: skip
"""Edges at one frame period of 60 and of 30 frames per second, so that a bar on either is exact."""

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
        self.frames = self._counter("gdkvm_frames", "Frames answered, by answer.", "answer")
        self.sessions_opened = self._counter(
            "gdkvm_sessions_opened", "Sessions, by start.", "start"
        )
        self.errors = self._counter("gdkvm_errors", "Errors told to clients, by code.", "code")
        self.clips = self._counter("gdkvm_clips", "Clips finished, by end.", "state")
        self.clips_received = self._counter(
            "gdkvm_clips_received", "Clips received whole, by way in.", "door"
        )
        self.clip_duplicates = Counter(
            "gdkvm_clip_duplicates",
            "Clips answered from the store.",
            registry=self.registry,
        )
        self.clip_store_bytes = Gauge(
            "gdkvm_clip_store_bytes", "Size of all clips kept.", registry=self.registry
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
        self._stages = {stage: self.stage_s.labels(stage) for stage in STAGES}
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)

    def _counter(self, name: str, description: str, label: str) -> Counter:
        return Counter(name, description, [label], registry=self.registry)

    def _gauge(self, name: str, description: str, *labels: str) -> Gauge:
        return Gauge(name, description, list(labels), registry=self.registry)

    def observe_stage(self, stage: str, seconds: float) -> None:
        """Count one frame's time in one stage."""
        self._stages[stage].observe(seconds)

    def to_text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self.registry)
