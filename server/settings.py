"""Every deploy-time knob: typed, bounded, frozen, read once from GDKVM_* variables."""

import ipaddress
import os
import tempfile
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from server.errors import SettingsError

ENV_PREFIX = "GDKVM_"


def _home() -> Path:
    """Where a user's programs keep what should last.

    Source:
        XDG Base Directory Specification 0.8.
    """
    told = os.environ.get("XDG_DATA_HOME", "")
    return (Path(told) if told.startswith("/") else Path.home() / ".local" / "share") / "gdkvm"


class Settings(BaseSettings):
    """Deploy-time knobs, read once from GDKVM_* variables."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="forbid")

    host: str = Field(
        default="127.0.0.1", description="Address to listen on; other than loopback needs keys."
    )
    port: int = Field(default=8000, ge=0, le=65535, description="Port; 0 takes any free one.")
    api_keys_file: Path | None = Field(
        default=None, description="File of API keys, hashed; read anew whenever it changes."
    )
    tls_cert_file: Path | None = Field(
        default=None, description="Certificate chain in PEM, for TLS without a proxy."
    )
    tls_key_file: Path | None = Field(
        default=None, description="Private key of that certificate, in PEM."
    )
    audit_file: Path | None = Field(
        default=None, description="File that the audit log is written to, beside the log."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Least grave event that is logged."
    )
    model: str | None = Field(
        default=None, max_length=64, description="Model to serve; the manifest's default if unset."
    )
    threads: int = Field(
        default_factory=lambda: os.cpu_count() or 1, ge=1, le=1024, description="Inference threads."
    )
    streams: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="Frames inferred at once; measured at start if unset.",
    )
    backend: Literal["auto", "openvino", "onnxruntime", "torch"] = Field(
        default="auto", description="What runs the network; auto goes by the machine."
    )
    precision: Literal["f32", "bf16", "int8"] | None = Field(
        default=None,
        description="Of the network: f32, bf16 or int8; what the machine does best if unset.",
    )
    capacity_fps: float | None = Field(
        default=None,
        gt=0,
        description="Frames a second of all sessions together; measured if unset.",
    )
    max_sessions: PositiveInt = Field(default=16, description="The next one is refused.")
    inbox_frames: int = Field(
        default=8, ge=1, le=256, description="Unanswered frames allowed under policy every."
    )
    frame_max_bytes: int = Field(
        default=16 << 20, ge=1024, description="Longest message of a stream."
    )
    idle_timeout_s: float = Field(
        default=30.0, gt=0, description="Silence that ends a session or a request."
    )
    send_timeout_s: float = Field(
        default=10.0, gt=0, description="How long an answer may wait for its reader."
    )
    resume_s: float = Field(
        default=60.0, ge=0, description="How long a session outlives its socket."
    )
    drain_s: float = Field(
        default=10.0, gt=0, description="How long a stopping server waits for its sessions."
    )
    snapshot_store: str = Field(
        default_factory=lambda: str(
            Path(tempfile.gettempdir()) / f"gdkvm-sessions-{os.getuid()}" / "sessions.sqlite"
        ),
        description="SQLite file or redis:// URL where sessions outlive their server.",
    )
    snapshot_key: SecretStr | None = Field(
        default=None, description="32 bytes in hexadecimal that encrypt what that store holds."
    )
    checkpoint_frames: int = Field(
        default=16, ge=0, description="Answers of a session between two snapshots; 0 takes none."
    )
    record_dir: Path | None = Field(
        default=None, description="Folder that live sessions are recorded in; none records none."
    )
    record_frames: Literal["hashes", "payloads"] = Field(
        default="hashes", description="What is recorded of a frame: its hash, or all of it."
    )
    record_max_bytes: PositiveInt = Field(
        default=4 << 30, description="Bytes of all recordings; the oldest makes room."
    )
    trace_frames: int | None = Field(
        default=None,
        ge=0,
        description="OpenTelemetry traces, with one frame in so many; 0 traces sessions and clips "
        "alone, none nothing.",
    )
    clips: bool = Field(default=True, description="Take clips too; else live sessions alone.")
    upload_max_bytes: PositiveInt = Field(default=512 << 20, description="Longest clip file.")
    study_max_bytes: PositiveInt = Field(
        default=4 << 30, description="Longest request that brings several clips."
    )
    dicom_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="Port of the C-STORE receiver; 0 takes any free one, none opens none.",
    )
    dicom_ae_title: str = Field(
        default="GDKVM",
        pattern=r"^[\x21-\x5b\x5d-\x7e]{1,16}$",
        description="What the C-STORE receiver is called; other calls are refused.",
    )
    dicom_peers: str = Field(
        default="",
        description="Who may send, such as PACS@10.0.0.7,*@10.1.0.0/16; anybody where empty.",
    )
    dicom_associations: int = Field(
        default=8, ge=1, le=256, description="Associations at once; the next one is refused."
    )
    dicom_tls: bool = Field(
        default=False,
        description="TLS for the C-STORE receiver, with the certificate of GDKVM_TLS_CERT_FILE.",
    )
    dicom_client_ca_file: Path | None = Field(
        default=None, description="With TLS, the authority whose certificate a sender must have."
    )
    max_clips: PositiveInt = Field(
        default=1000, description="Results kept, and clips that may wait; the oldest makes room."
    )
    clip_keep_days: float = Field(
        default=30.0, gt=0, description="How long a finished clip is kept, in days."
    )
    clip_store_bytes: PositiveInt = Field(
        default=20 << 30, description="Bytes of all clips kept; the oldest makes room."
    )
    clip_dir: Path = Field(
        default_factory=lambda: _home() / "clips",
        description="Folder of clips and their queue, which outlive the server.",
    )
    clip_share: str | None = Field(
        default=None,
        min_length=1,
        description="Folder or URL where servers of one Redis keep clips together; alone if unset.",
    )
    clip_lease_s: float = Field(
        default=15.0, ge=1, description="Silence after which others take over a server's clips."
    )

    deidentify_key: SecretStr | None = Field(
        default=None,
        description="Secret that pseudonyms are made with; one of each start's own if unset.",
    )

    def has_redis(self) -> bool:
        """Whether sessions are kept where several servers share them."""
        return self.snapshot_store.startswith(("redis://", "rediss://"))

    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def load_settings(host: str | None = None, port: int | None = None) -> Settings:
    """Read the environment; what the command line gives goes first.

    Raises:
        SettingsError: an unknown GDKVM_* variable, a value out of bounds, half of what TLS needs,
            or a server that anyone could reach without a key.
    """
    check_names(list(os.environ))
    given: dict[str, Any] = {"host": host, "port": port}
    try:
        settings = Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name = ENV_PREFIX + "_".join(str(part) for part in first["loc"]).upper()
        raise SettingsError(f"{name}: {first['msg']}") from error
    if not settings.is_loopback() and settings.api_keys_file is None:
        raise SettingsError(
            f"{settings.host} can be reached from outside: set GDKVM_API_KEYS_FILE, or listen on "
            "127.0.0.1"
        )
    if (settings.tls_cert_file is None) != (settings.tls_key_file is None):
        raise SettingsError("GDKVM_TLS_CERT_FILE and GDKVM_TLS_KEY_FILE go together")
    if settings.clip_share is not None and not settings.has_redis():
        raise SettingsError(
            "GDKVM_CLIP_SHARE needs GDKVM_SNAPSHOT_STORE to be a redis:// address, where clips "
            "are written down"
        )
    if settings.dicom_port is not None:
        _check_dicom(settings)
    return settings


def _check_dicom(settings: Settings) -> None:
    has_authority = settings.dicom_tls and settings.dicom_client_ca_file is not None
    if not settings.is_loopback() and not settings.dicom_peers and not has_authority:
        raise SettingsError(
            f"anybody could send to {settings.host}: set GDKVM_DICOM_PEERS, or GDKVM_DICOM_TLS "
            "and GDKVM_DICOM_CLIENT_CA_FILE"
        )
    if settings.dicom_client_ca_file is not None and not settings.dicom_tls:
        raise SettingsError("GDKVM_DICOM_CLIENT_CA_FILE needs GDKVM_DICOM_TLS")


def check_names(names: list[str]) -> None:
    """Refuse a misspelt variable, which would otherwise be ignored.

    Raises:
        SettingsError: a GDKVM_* name that is no setting.
    """
    known = {ENV_PREFIX + name.upper() for name in Settings.model_fields}
    unknown = [name for name in names if name.upper().startswith(ENV_PREFIX)]
    unknown = sorted(name for name in unknown if name.upper() not in known)
    if unknown:
        raise SettingsError(f"unknown settings: {', '.join(unknown)}")
