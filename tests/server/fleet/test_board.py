"""Any replica answers for the fleet: metrics and sessions of all, each with its replica's name."""

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from server.fleet.board import Board, to_listing, to_text
from server.metrics import Metrics
from tests.e2e.fleet import redis_server
from tests.server.routes.asking import wait_until


def shown(text: bytes, sample: str) -> dict[str, float]:
    """The values of a sample, by replica."""
    return {
        each.labels["replica"]: each.value
        for family in text_string_to_metric_families(text.decode())
        for each in family.samples
        if each.name == sample
    }


def test_each_replica_shows_itself_and_all_the_others(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        boards = {name: Board(url, name) for name in ("a", "b")}
        wait_until(lambda: _answers(boards["a"]))
        for number, board in enumerate(boards.values(), 1):
            metrics = Metrics()
            metrics.sessions.labels("live").set(number)
            metrics.frames.labels("result").inc(10 * number)
            board.post(metrics, [{"session": f"s_{number}", "phase": "live"}])
        posts = boards["b"].read()
        text = to_text(posts)
        assert shown(text, "gdkvm_sessions") == {"a": 1, "b": 2}
        assert shown(text, "gdkvm_frames_total") == {"a": 10, "b": 20}
        assert text.count(b"# TYPE gdkvm_sessions gauge") == 1
        assert to_listing(posts) == [
            {"session": "s_1", "phase": "live", "replica": "a"},
            {"session": "s_2", "phase": "live", "replica": "b"},
        ]
        boards["a"].leave()
        assert set(boards["b"].read()) == {"b"}
        boards["b"].leave()


def test_a_replica_without_its_redis_goes_on_unseen() -> None:
    board = Board("redis://127.0.0.1:1/0", "a")
    board.post(Metrics(), [])
    assert board.read() == {}
    board.leave()


def _answers(board: Board) -> bool:
    board.post(Metrics(), [])
    return "a" in board.read()
