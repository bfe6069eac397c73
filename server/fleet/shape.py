"""What a fleet is asked to be: its size, and settings with which replicas can share sessions."""

from pydantic import BaseModel, Field

from server.errors import SettingsError
from server.settings import Settings


class FleetShape(BaseModel):
    """What the config file of a cluster may say in ``args``."""

    min_replicas: int = Field(default=1, ge=1)
    max_replicas: int = Field(default=1, ge=1)
    cpus: float = Field(default=1, gt=0, description="Processors of each replica.")
    gpus: float = Field(default=0, ge=0, description="GPUs of each replica.")
    max_sessions: int = Field(default=16, ge=1, description="As GDKVM_MAX_SESSIONS.")
    drain_s: float = Field(default=10.0, gt=0, description="As GDKVM_DRAIN_S.")
    policy: dict[str, float] = Field(default_factory=dict, description="See scaling.Policy.")
    clip_share: str | None = Field(
        default=None, description="As GDKVM_CLIP_SHARE, where replicas are told none."
    )


def fleet_settings(
    settings: Settings, threads: int | None = None, clip_share: str | None = None
) -> Settings:
    """The settings of one replica.

    Args:
        settings: of this process.
        threads: processors that Ray gave it, None where it gave none.
        clip_share: where clips are kept together, if the settings do not say.

    Raises:
        SettingsError: the store of snapshots is not one that replicas share.
    """
    if settings.resume_s == 0 or not settings.has_redis():
        raise SettingsError(
            "replicas hand sessions to each other through Redis: set GDKVM_SNAPSHOT_STORE to a "
            "redis:// address, and GDKVM_RESUME_S above 0"
        )
    share = settings.clip_share or clip_share
    # Replicas of one machine cannot all have the port that a scanner sends to.
    changes: dict[str, object] = {
        "clip_share": share,
        "clips": settings.clips and share is not None,
        "dicom_port": None,
    }
    if threads is not None and "threads" not in settings.model_fields_set:
        changes["threads"] = threads
    return settings.model_copy(update=changes)
