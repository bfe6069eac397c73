"""Who is let in: holders of a key, pages of this server, and without keys this machine alone."""

import hashlib
import json
from collections.abc import Iterator

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.server.live import Live, live_server

KEY = "correct horse battery staple"


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Without keys."""
    with live_server(tmp_path_factory.mktemp("clips")) as live:
        yield live


@pytest.fixture(scope="module")
def locked_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """With one key."""
    folder = tmp_path_factory.mktemp("locked")
    (folder / "keys").write_text(hashlib.sha256(KEY.encode()).hexdigest() + "\n")
    with live_server(folder / "clips", api_keys_file=folder / "keys") as live:
        yield live


async def upgrade_status(live: Live, **headers: str) -> int:
    """The status of a websocket's upgrade; 101 where it was let in and can say hello."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        async with live.socket(**named) as talk:
            await talk.say_hello()
            assert (await talk.hear())["type"] == "ready"
            await talk.end()
    except InvalidStatus as refused:
        return refused.response.status_code
    return 101


@pytest.mark.parametrize("path", ["/v1/sessions", "/metrics", "/v1/models", "/v1/clips", "/none"])
def test_without_the_key_every_path_is_refused_as_a_problem(locked_server: Live, path: str) -> None:
    answer = locked_server.http.get(path)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["code"], problem["status"]) == ("unauthorized", 401)
    assert "Bearer" in problem["detail"]


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_an_orchestrator_needs_no_key(locked_server: Live, path: str) -> None:
    assert locked_server.http.get(path, headers={"Host": "pod-7"}).status_code == 200


@pytest.mark.parametrize(
    ("value", "status"),
    [
        (f"Bearer {KEY}", 200),
        (f"bearer  {KEY}", 200),
        (f"Basic {KEY}", 401),
        (KEY, 401),
        ("Bearer", 401),
        ("Bearer " + KEY.upper(), 401),
        ("Bearer " + hashlib.sha256(KEY.encode()).hexdigest(), 401),
        (b"Bearer \xff\xfe", 401),
    ],
)
def test_only_the_key_opens(locked_server: Live, value: str | bytes, status: int) -> None:
    headers = {"Authorization": value, "Host": "heart.example"}
    assert locked_server.http.get("/v1/sessions", headers=headers).status_code == status  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["/", "/v1/stream/", "/v1/clips"])
async def test_a_websocket_elsewhere_is_told_that_there_is_none(
    open_server: Live, path: str
) -> None:
    # Not 403, over which its author would look for a key.
    with pytest.raises(InvalidStatus) as refusal:
        await connect(f"ws://localhost:{open_server.port}{path}")
    assert refusal.value.response.status_code == 404
    assert json.loads(refusal.value.response.body or b"")["code"] == "not_found"


async def test_only_the_key_opens_a_stream(locked_server: Live) -> None:
    assert await upgrade_status(locked_server) == 401
    assert await upgrade_status(locked_server, Authorization="Bearer no") == 401
    assert await upgrade_status(locked_server, Authorization=f"Bearer {KEY}") == 101


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "http://localhost:1", "http://[bad", "http://127.0.0.1"],
)
async def test_a_page_of_another_origin_is_refused(open_server: Live, origin: str) -> None:
    assert await upgrade_status(open_server, Origin=origin) == 403
    for method in ("POST", "DELETE"):
        answer = open_server.http.request(method, "/v1/clips", headers={"Origin": origin})
        assert (answer.status_code, answer.json()["code"]) == (403, "foreign_page")


async def test_a_foreign_page_is_refused_even_with_the_key(locked_server: Live) -> None:
    headers = {"Authorization": f"Bearer {KEY}", "Origin": "http://evil.example"}
    assert await upgrade_status(locked_server, **headers) == 403


async def test_the_page_of_this_server_is_let_in(open_server: Live) -> None:
    assert await upgrade_status(open_server, Origin=f"http://127.0.0.1:{open_server.port}") == 101


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "10.0.0.1:8000", "[bad"]
)
async def test_a_foreign_name_that_points_here_is_refused(open_server: Live, host: str) -> None:
    answer = open_server.http.get("/v1/sessions", headers={"Host": host})
    assert (answer.status_code, answer.json()["code"]) == (403, "foreign_page")


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:9", "[::1]:8000"])
def test_this_machine_may_be_asked_by_each_of_its_names(open_server: Live, host: str) -> None:
    assert open_server.http.get("/v1/sessions", headers={"Host": host}).status_code == 200
