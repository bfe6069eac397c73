"""What a key opens and how much of it, and what is written down of it."""

import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from server.access import TICKET_S, Pacer, Tickets
from server.keys import ApiKey
from server.log import JsonFormatter
from tests.server.live import HELLO, Live, Talk, beating, live_server

LINES = {
    "everything": "",
    "stream": "scopes=stream",
    "upload": "scopes=upload max_upload_bytes=1000",
    "admin": "scopes=admin",
    "one": "scopes=stream max_sessions=1",
    "slow": "scopes=stream max_fps=20",
    "slowest": "scopes=stream max_fps=2 max_sessions=1",
}


def line_of(name: str) -> str:
    return f"{hashlib.sha256(name.encode()).hexdigest()} name={name} {LINES[name]}\n"


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {name}"}


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server with a key of each kind, each the word that names it."""
    folder = tmp_path_factory.mktemp("access")
    (folder / "keys").write_text("".join(map(line_of, LINES)))
    with live_server(folder / "clips", api_keys_file=folder / "keys") as live:
        yield live


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/clips", {"everything", "upload"}),
        ("DELETE", "/v1/clips/none", {"everything", "upload"}),
        ("POST", "/v1/biplane", {"everything", "upload"}),
        ("POST", "/dicom-web/studies", {"everything", "upload"}),
        ("GET", "/v1/sessions", {"everything", "admin"}),
        ("GET", "/metrics", {"everything", "admin"}),
        ("GET", "/v1/models", set(LINES)),
        ("POST", "/v1/tickets", set(LINES)),
    ],
)
def test_a_key_opens_what_its_scopes_say(
    live: Live, method: str, path: str, allowed: set[str]
) -> None:
    for name in LINES:
        answer = live.http.request(method, path, headers=bearer(name))
        assert (answer.status_code != 403) == (name in allowed), (name, answer.status_code)
        if name not in allowed:
            assert answer.json()["code"] == "forbidden"


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/gdkvm.js", "/sample.json"])
def test_the_page_is_there_before_a_key_was_entered(live: Live, path: str) -> None:
    assert live.http.get(path).status_code == 200


@pytest.mark.parametrize(
    "path", ["/v1/clips/x.js", "/v1/clips/c_1/report.html", "/dicom-web/a.css", "/metrics/.js"]
)
def test_the_name_of_a_page_opens_no_result(live: Live, path: str) -> None:
    assert live.http.get(path).status_code == 401


async def open_status(live: Live, query: str = "", **headers: str) -> int:
    try:
        async with connect(live.url + query, additional_headers=headers) as connection:
            await Talk(connection).say(HELLO)
            assert (await Talk(connection).hear())["type"] == "ready"
            await Talk(connection).end()
    except InvalidStatus as refused:
        return refused.response.status_code
    return 101


async def ticket_of(live: Live, name: str) -> str:
    answer = live.http.post("/v1/tickets", headers=bearer(name))
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    ticket: str = answer.json()["ticket"]
    return ticket


async def test_who_leaves_with_frames_under_way_leaves_the_keys_place_to_the_next(
    live: Live,
) -> None:
    async with live.socket(**bearer("slowest")) as talk:
        await talk.say(HELLO)
        await talk.hear()
        live.backend.gate.clear()
        # After these the server does not listen for half a second.
        for seq in range(5):
            await talk.say(beating(seq))
        await talk.settle()
        await talk.connection.close(1000)
    live.backend.gate.set()
    await live.until_sessions(0)


async def test_a_ticket_opens_one_stream_once(live: Live) -> None:
    ticket = await ticket_of(live, "stream")
    assert await open_status(live, f"?ticket={ticket}") == 101
    assert await open_status(live, f"?ticket={ticket}") == 401
    assert await open_status(live, "?ticket=") == 401
    assert await open_status(live, "?ticket=made-up") == 401


async def test_a_ticket_opens_no_more_than_its_key(live: Live) -> None:
    ticket = await ticket_of(live, "upload")
    assert await open_status(live, f"?ticket={ticket}") == 403
    ticket = await ticket_of(live, "upload")
    assert live.http.get(f"/v1/clips?ticket={ticket}").status_code == 200
    ticket = await ticket_of(live, "upload")
    answer = live.http.delete(f"/v1/clips/none?ticket={ticket}")
    assert answer.status_code == 401, "a link that somebody clicks must not delete"


async def test_a_ticket_grows_old() -> None:
    now_s = 100.0
    tickets, key = Tickets(lambda: now_s), ApiKey("a", "0" * 64)
    early, late = await tickets.issue(key), await tickets.issue(key)
    now_s += TICKET_S - 0.01
    assert await tickets.redeem(early) is key
    now_s += 0.02
    assert await tickets.redeem(late) is None


async def test_a_key_holds_as_many_sessions_as_it_may(live: Live) -> None:
    async with live.socket(**bearer("one")) as talk:
        await talk.say(HELLO)
        ready = await talk.hear()
        async with live.socket(**bearer("one")) as second:
            await second.say(HELLO)
            heard, code = await second.hear_all()
        assert ([each.get("code") for each in heard], code) == (["full"], 1013)
        async with live.socket(**bearer("stream")) as other:
            await other.say({**HELLO, "resume": ready["resume"]})
            heard, code = await other.hear_all()
        assert (heard[0]["code"], code) == ("cannot_resume", 4004)
        talk.abort()
    await live.until_parked(ready["session"])
    async with live.socket(**bearer("one")) as talk:
        await talk.say({**HELLO, "resume": ready["resume"]})
        assert (await talk.hear())["resumed"] is True
        await talk.end()


async def test_what_a_key_holds_on_other_replicas_counts_here(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    roster = live.server.parts.roster
    monkeypatch.setattr(roster, "held_elsewhere", {"one": 1, "slow": 3}.__getitem__)
    async with live.socket(**bearer("one")) as talk:
        await talk.say(HELLO)
        heard, code = await talk.hear_all()
    assert ([each.get("code") for each in heard], code) == (["full"], 1013)
    async with live.socket(**bearer("slow")) as talk:
        await talk.say(HELLO)
        assert (await talk.hear())["type"] == "ready"
        assert roster.share_of("slow") == 1 / 4
        await talk.end()


def test_frames_above_the_rate_of_a_key_wait_as_the_cell_rate_algorithm_says() -> None:
    now_s = 0.0
    pacer, key = Pacer(lambda: now_s), ApiKey("a", "0" * 64, max_fps=10.0)
    # Four frames of burst are free; each further one waits a period of 100 ms more.
    waits = [pacer.count(key) for _ in range(7)]
    assert waits == pytest.approx([0, 0, 0, 0, 0.1, 0.2, 0.3])
    now_s = 100.0
    assert pacer.count(key) == 0
    assert pacer.count(ApiKey("b", "1" * 64)) == 0


def test_a_key_that_streams_at_several_replicas_has_its_share_of_its_rate_at_each() -> None:
    shares = {"a": 0.25}
    pacer, key = Pacer(lambda: 100.0, shares.__getitem__), ApiKey("a", "0" * 64, max_fps=10.0)
    waits = [pacer.count(key) for _ in range(7)]
    # A quarter of ten frames a second: one in 0.4 s, once those let through at once are gone.
    assert waits[-1] - waits[-2] == pytest.approx(0.4)


async def test_a_paced_session_loses_no_frame(live: Live) -> None:
    async with live.socket(**bearer("slow")) as talk:
        await talk.say(HELLO)
        await talk.hear()
        for seq in range(8):
            await talk.say(beating(seq))
        answers = [(await talk.hear()) for _ in range(8)]
        assert [answer["seq"] for answer in answers] == list(range(8))
        assert {answer["type"] for answer in answers} == {"result"}
        await talk.end()


def test_an_upload_above_the_limit_of_its_key_is_refused_and_leaves_nothing(live: Live) -> None:
    def chunks() -> Iterator[bytes]:
        yield from [bytes(600)] * 2

    for body in (bytes(1001), chunks()):
        answer = live.http.post("/v1/clips", content=body, headers=bearer("upload"))
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert live.http.get("/v1/clips", headers=bearer("upload")).json() == []
    answer = live.http.post("/v1/clips", content=bytes(1001), headers=bearer("everything"))
    assert answer.status_code == 202


async def test_a_revoked_key_ends_its_session_at_the_next_frame(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(line_of("stream") + line_of("everything"))
    with live_server(tmp_path / "clips", api_keys_file=keys) as live:
        async with live.socket(**bearer("stream")) as talk:
            await talk.say(HELLO)
            await talk.hear()
            await talk.say(beating(0))
            assert (await talk.hear())["seq"] == 0
            keys.write_text(line_of("everything"))
            await talk.say(beating(1))
            heard, code = await talk.hear_all()
        assert ([each.get("code") for each in heard], code) == (["unauthorized"], 1008)
        assert await open_status(live, **bearer("stream")) == 401
        assert await open_status(live, **bearer("everything")) == 101


def audit_lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    records = [record for record in caplog.records if record.name == "server.audit"]
    return [json.loads(JsonFormatter().format(record)) for record in records]


def test_who_uploaded_fetched_and_deleted_what_is_written_down(
    live: Live, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    headers = {**bearer("upload"), "X-Request-ID": "proxy-0001", "Range": "items=0-5"}
    made = live.http.post("/v1/clips", content=bytes(10), headers=headers)
    clip = made.headers["location"].rsplit("/", 1)[1]
    for path in (f"/v1/clips/{clip}", f"/v1/clips/{clip}/result", "/v1/clips/Doe^Jane/result"):
        live.http.get(path, headers=headers)
    live.http.delete(f"/v1/clips/{clip}", headers=headers)
    live.http.delete("/v1/clips/none", headers=bearer("stream"))
    lines = audit_lines(caplog)
    assert [(line["action"], line["resource"], line["status"]) for line in lines] == [
        ("upload", clip, 202),
        ("download", clip, lines[1]["status"]),
        ("download", None, 404),
        ("delete", clip, 204),
    ]
    assert {line["key"] for line in lines} == {"upload"}
    assert lines[0]["received_bytes"] == 10
    assert lines[1]["route"] == "/v1/clips/{clip}/result"
    assert "Doe" not in json.dumps(lines)


@pytest.mark.parametrize("given", ["proxy-0001", "bad name", "x" * 65, "a\tb"])
def test_an_answer_names_its_request_as_the_proxy_did_where_that_is_a_name(
    live: Live, given: str
) -> None:
    answer = live.http.get("/livez", headers={"X-Request-ID": given})
    name = answer.headers["x-request-id"]
    assert (name == given) == (given == "proxy-0001")
    assert name.replace("-", "").replace("_", "").isalnum()


@pytest.mark.parametrize("path", ["/", "/v1/clips", "/none", "/docs"])
def test_every_answer_carries_what_keeps_a_browser_safe(live: Live, path: str) -> None:
    headers = live.http.get(path, headers=bearer("everything")).headers
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert "strict-transport-security" not in headers, "only over TLS: RFC 6797, section 7.2"
