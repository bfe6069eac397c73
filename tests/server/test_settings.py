"""Knobs are bounded, misspelt ones are refused, and nobody serves the world without keys."""

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from server.errors import SettingsError
from server.settings import Settings, check_names, load_settings


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("GDKVM_")]:
        monkeypatch.delenv(name)


def test_a_variable_sets_its_field(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GDKVM_MAX_SESSIONS", "3")
    monkeypatch.setenv("GDKVM_RESUME_S", "0.5")
    settings = load_settings()
    assert (settings.max_sessions, settings.resume_s) == (3, 0.5)


def test_the_command_line_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GDKVM_PORT", "1234")
    assert load_settings().port == 1234
    assert load_settings(port=0).port == 0


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1  # type: ignore[misc]


@pytest.mark.parametrize("name", ["GDKVM_MAX_SESIONS", "GDKVM_", "gdkvm_max_sesions"])
def test_a_misspelt_variable_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "3")
    with pytest.raises(SettingsError, match=name):
        load_settings()


def test_variables_of_others_are_left_alone() -> None:
    check_names(["PATH", "XGDKVM_A", "GDKVM_PORT", "gdkvm_port"])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GDKVM_PORT", "65536"),
        ("GDKVM_PORT", "http"),
        ("GDKVM_MAX_SESSIONS", "0"),
        ("GDKVM_INBOX_FRAMES", "257"),
        ("GDKVM_FRAME_MAX_BYTES", "1023"),
        ("GDKVM_IDLE_TIMEOUT_S", "0"),
        ("GDKVM_RESUME_S", "-1"),
        ("GDKVM_STREAMS", "0"),
        ("GDKVM_LOG_LEVEL", "loud"),
    ],
)
def test_a_value_out_of_bounds_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name):
        load_settings()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_its_own_machine_needs_no_key(host: str) -> None:
    assert load_settings(host=host).host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "heart.example", ""])
def test_an_address_that_others_reach_needs_keys(
    host: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match="GDKVM_API_KEYS_FILE"):
        load_settings(host=host)
    monkeypatch.setenv("GDKVM_API_KEYS_FILE", str(tmp_path / "keys"))
    assert load_settings(host=host).host == host


@pytest.mark.parametrize("name", ["GDKVM_TLS_CERT_FILE", "GDKVM_TLS_KEY_FILE"])
def test_half_of_what_tls_needs_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "/etc/ssl/one.pem")
    with pytest.raises(SettingsError, match="go together"):
        load_settings()


@pytest.mark.parametrize(
    ("more", "is_enough"),
    [
        ({}, False),
        ({"PEERS": "PACS@10.0.0.7"}, True),
        ({"TLS": "true"}, False),
        ({"TLS": "true", "CLIENT_CA_FILE": "ca.pem"}, True),
        ({"CLIENT_CA_FILE": "ca.pem"}, False),
    ],
)
def test_nobody_takes_instances_from_the_world_without_knowing_the_senders(
    monkeypatch: pytest.MonkeyPatch, more: dict[str, str], is_enough: bool
) -> None:
    monkeypatch.setenv("GDKVM_API_KEYS_FILE", "keys")
    monkeypatch.setenv("GDKVM_DICOM_PORT", "11112")
    for name, value in more.items():
        monkeypatch.setenv(f"GDKVM_DICOM_{name}", value)
    if is_enough:
        assert load_settings("0.0.0.0").dicom_port == 11112
    else:
        with pytest.raises(SettingsError, match="GDKVM_DICOM"):
            load_settings("0.0.0.0")


def test_clips_are_shared_only_with_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GDKVM_CLIP_SHARE", "/mnt/clips")
    with pytest.raises(SettingsError, match="GDKVM_SNAPSHOT_STORE"):
        load_settings()
    monkeypatch.setenv("GDKVM_SNAPSHOT_STORE", "rediss://redis.internal/0")
    assert load_settings().clip_share == "/mnt/clips"
