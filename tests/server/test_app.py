"""The routes of a server, and every refusal as a problem document (RFC 9457)."""

from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

import server.errors
from model import EchoError
from server.batch.errors import BatchError
from server.errors import WireCodes
from server.ingest import IngestError
from server.settings import Settings
from tests.server.live import Live, beating, live_server


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live_server(tmp_path_factory.mktemp("clips")) as live:
        yield live


def test_it_is_alive_and_ready(live: Live) -> None:
    assert live.http.get("/livez").json() == {"status": "alive"}
    ready = live.http.get("/readyz")
    assert (ready.status_code, ready.json()) == (200, {"status": "ready"})


def test_the_served_models_are_listed(live: Live) -> None:
    assert live.http.get("/v1/models").json() == [
        {
            "name": "counting",
            "version": "1",
            "sha256": "00" * 32,
            "licence": "none",
            "network_size": 48,
            "backend": "numpy",
            "precision": None,
        }
    ]


async def test_a_live_session_is_listed(live: Live) -> None:
    async with live.talk() as talk:
        await talk.say(beating(0))
        await talk.hear()
        (shown,) = (await live.get("/v1/sessions")).json()
        assert (shown["session"], shown["phase"]) == (talk.ready["session"], "live")
        assert (shown["results"], shown["policy"]) == (1, "every")
        await talk.end()
    await live.assert_all_is_freed()


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/v1/clips/nothing", 404, "not_found"),
        ("GET", "/v1/stream", 404, "not_found"),
        ("GET", "/sample/999.jpg", 404, "not_found"),
        ("GET", "/sample/one.jpg", 400, "bad_request"),
        ("POST", "/v1/clips?view=A7C", 400, "bad_request"),
        ("POST", "/readyz", 405, "method_not_allowed"),
        ("DELETE", "/metrics", 405, "method_not_allowed"),
        ("POST", "/v1/clip", 404, "not_found"),
    ],
)
def test_a_refusal_is_a_problem_document(
    live: Live, method: str, path: str, status: int, code: str
) -> None:
    answer = live.http.request(method, path)
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert set(problem) == {"type", "title", "status", "detail", "code"}
    assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code)
    assert problem["detail"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/clips", {"GET", "HEAD", "POST"}),
        ("OPTIONS", "/v1/clips", {"GET", "HEAD", "POST"}),
        ("PATCH", "/v1/clips/nothing", {"GET", "HEAD", "DELETE"}),
        ("GET", "/v1/biplane", {"POST"}),
        ("HEAD", "/v1/biplane", {"POST"}),
        ("GET", "/v1/clips/nothing/frames/0", {"PATCH"}),
        ("POST", "/livez", {"GET", "HEAD"}),
        ("POST", "/", {"GET", "HEAD"}),
        ("DELETE", "/gdkvm.js", {"GET", "HEAD"}),
    ],
)
def test_whoever_asks_by_the_wrong_method_is_told_the_right_ones(
    live: Live, method: str, path: str, allowed: set[str]
) -> None:
    # RFC 9110 section 15.5.6: "The origin server MUST generate an Allow header field".
    answer = live.http.request(method, path)
    assert answer.status_code == 405
    assert set(answer.headers["Allow"].split(", ")) == allowed
    if method != "HEAD":
        assert answer.json()["code"] == "method_not_allowed"


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/v1/models", "/", "/v1/clips/nothing"])
def test_head_is_answered_as_get_is_without_the_body(live: Live, path: str) -> None:
    # RFC 9110 section 9.3.2.
    got, asked = live.http.get(path), live.http.head(path)
    assert (asked.status_code, asked.content) == (got.status_code, b"")
    for name in ("content-type", "content-length"):
        assert asked.headers[name] == got.headers[name]


def test_a_refusal_is_counted_by_its_code(live: Live) -> None:
    def count() -> float:
        families = text_string_to_metric_families(live.http.get("/metrics").text)
        return sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == "gdkvm_errors_total" and sample.labels["code"] == "not_found"
        )

    before = count()
    live.http.get("/nothing")
    assert count() == before + 1


def test_a_fault_of_ours_is_told_without_its_details(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(live.server.parts.roster, "listing", fail)
    answer = live.http.get("/v1/sessions", headers={"Connection": "close"})
    assert (answer.status_code, answer.json()["code"]) == (500, "engine_failed")
    assert answer.headers["content-type"] == "application/problem+json"
    assert "secret" not in answer.text


def test_the_page_and_the_description_of_the_routes_are_served(live: Live) -> None:
    page = live.http.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "research use only" in page.text.lower()
    paths = live.http.get("/openapi.json").json()["paths"]
    assert {"/v1/clips", "/v1/models", "/v1/sessions", "/livez", "/readyz", "/metrics"} <= set(
        paths
    )
    assert live.http.get("/docs").status_code == 200


def test_the_sample_clip_is_served_frame_by_frame(live: Live) -> None:
    facts = live.http.get("/sample.json").json()
    assert (facts["frames"], facts["size"]) == (30, [240, 320])
    for index in (0, 29):
        frame = live.http.get(f"/sample/{index}.jpg")
        assert frame.headers["content-type"] == "image/jpeg"
        assert frame.content.startswith(b"\xff\xd8")


def test_how_late_the_event_loop_wakes_is_measured(live: Live) -> None:
    families = text_string_to_metric_families(live.http.get("/metrics").text)
    assert "gdkvm_event_loop_lag_seconds" in {family.name for family in families}


def test_the_defaults_of_the_protocol_page_are_the_defaults_of_the_settings() -> None:
    assert (Settings().resume_s, Settings().host) == (60, "127.0.0.1")


def test_every_error_of_the_server_has_its_own_code_and_a_status() -> None:
    def below(kind: type[EchoError]) -> Iterator[type[EchoError]]:
        for child in kind.__subclasses__():
            yield child
            yield from below(child)

    kinds = [kind for kind in below(EchoError) if kind.__module__.startswith(("server.", "model."))]
    assert server.errors.EngineDeadError in kinds
    assert any(issubclass(kind, IngestError) for kind in kinds)
    known = WireCodes.HTTP.keys() | WireCodes.CLOSE.keys()
    our_fault = {"engine_failed", "bad_state", "bad_weights", "bad_settings"}
    never_sent = {"protocol", "socket_gone", "error"}
    of_a_command = {"bad_recording"} | {kind.code for kind in below(BatchError)}
    assert {kind.code for kind in kinds} <= known | our_fault | never_sent | of_a_command
