"""Ray on one machine asks for a token, unless it was told otherwise."""

import os

import pytest

from server.local_ray import close_ray_to_strangers


@pytest.mark.parametrize(
    ("told", "has_token"), [(None, True), ("token", True), ("disabled", False)]
)
def test_a_token_is_made_up_at_each_start_unless_ray_was_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, told: str | None, has_token: bool
) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    monkeypatch.setattr(os, "environ", kept if told is None else kept | {"RAY_AUTH_MODE": told})
    close_ray_to_strangers()
    assert os.environ["RAY_AUTH_MODE"] == (told or "token")
    assert (len(os.environ.get("RAY_AUTH_TOKEN", "")) == 64) is has_token
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


def test_a_token_that_was_given_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "ours")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_BACKEND_LOG_LEVEL", "fatal")
    close_ray_to_strangers()
    assert os.environ["RAY_AUTH_TOKEN"] == "ours"
