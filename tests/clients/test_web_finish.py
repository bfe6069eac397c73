"""How the browser's stream ends: with the server's summary, or with why there is none."""

from tests.clients.node import run_node
from tests.clients.test_web_stream import SOCKET

GONE = """
    const gone = { type: "error", code: "cannot_resume", message: "gone", retryable: false };
    const begin = async () => {
      const stream = open();
      (await next(1)).ready();
      stream.send(frame, { seq: 0 });
      sockets[0].cut();
      return stream;
    };
"""


def test_the_end_is_the_servers_summary() -> None:
    told = run_node(
        SOCKET
        + """
        const stream = open();
        const socket = await next(1);
        socket.ready();
        const end = stream.finish();
        socket.say({ type: "summary", results: 3 });
        tell([socket.texts.at(-1), (await end).results, stream.state]);
        """
    )
    assert told == [{"type": "bye"}, 3, "closed"]


def test_a_session_lost_before_its_summary_is_told_as_lost() -> None:
    told = run_node(
        SOCKET
        + GONE
        + """
        const stream = await begin();
        const end = stream.finish().catch((error) => [error.name, error.code, error.message]);
        const second = await next(2);
        second.say(gone);
        second.cut(4004);
        tell([await end, states.at(-1).state, states.at(-1).reason, sockets.length]);
        """
    )
    # As the Python client raises it: no new, empty session is begun.
    assert told == [["GdkvmError", "cannot_resume", "gone"], "failed", "gone", 2]


def test_a_session_that_is_not_yet_begun_anew_has_no_summary_either() -> None:
    told = run_node(
        SOCKET
        + GONE
        + """
        const stream = await begin();
        const second = await next(2);
        second.say(gone);
        second.cut(4004);
        (await next(3)).cut(); // the server is not back yet
        const end = await stream.finish().catch((error) => error.code);
        tell([end, stream.state, sockets.length]);
        """
    )
    assert told == ["cannot_resume", "failed", 3]


def test_a_session_that_is_closed_before_its_summary_says_so() -> None:
    told = run_node(
        SOCKET
        + """
        const stream = open();
        const socket = await next(1);
        socket.ready();
        const end = stream.finish().catch((error) => error.code);
        stream.close();
        tell([await end, stream.state, socket.closedWith]);
        """
    )
    assert told == ["closed", "closed", 1000]
