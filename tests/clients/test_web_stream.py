"""The browser's stream against a scripted socket: what a real link does rarely, on demand."""

from tests.clients.node import run_node

SOCKET = """
    import { GdkvmStream } from "./gdkvm.js";
    const sockets = [];
    class Scripted {
      constructor(url) {
        Object.assign(this, { url, texts: [], seqs: [], bufferedAmount: 0, closedWith: null });
        sockets.push(this);
        setTimeout(() => this.onopen?.());
      }
      send(message) {
        if (typeof message === "string") this.texts.push(JSON.parse(message));
        else this.seqs.push(Number(new DataView(message).getBigUint64(8, true)));
      }
      close(code) { this.closedWith = code; }
      say(message) { this.onmessage?.({ data: JSON.stringify(message) }); }
      ready(more = {}) {
        this.say({ type: "ready", resume: "secret", credits: 2, resumed: false, ...more });
      }
      cut(code = 1006) { this.onclose?.({ code }); }
    }
    globalThis.WebSocket = Scripted;
    const next = async (count) => {
      while (sockets.length < count || !sockets[count - 1].texts.length) {
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
      return sockets[count - 1];
    };
    const states = [];
    const open = (hello = {}, options = {}) => {
      const stream = new GdkvmStream("ws://echo/v1/stream", { size: [16, 16], ...hello }, options);
      stream.addEventListener("state", ({ detail }) => states.push(detail));
      return stream;
    };
    const frame = new Uint8Array(4);
    const tell = (value) => { console.log(JSON.stringify(value)); process.exit(0); };
"""


def test_after_a_cut_the_unanswered_frames_are_sent_again_under_the_token() -> None:
    told = run_node(
        SOCKET
        + """
        const stream = open();
        const first = await next(1);
        first.ready();
        for (const seq of [0, 1, 2]) stream.send(frame, { seq });
        first.say({ type: "result", seq: 0 });
        first.cut();
        const second = await next(2);
        second.ready({ resumed: true });
        const { state, reason, resent } = states.at(-1);
        tell([second.texts[0].resume, first.texts[0].resume, second.seqs, state, reason, resent]);
        """
    )
    assert told == ["secret", None, [1, 2], "live", "resumed", 2]


def test_a_session_kept_no_longer_is_begun_anew_and_said_so() -> None:
    told = run_node(
        SOCKET
        + """
        const stream = open();
        (await next(1)).ready();
        stream.send(frame, { seq: 0 });
        sockets[0].cut();
        const second = await next(2);
        second.say({ type: "error", code: "cannot_resume", message: "gone", retryable: false });
        second.cut(4004);
        const third = await next(3);
        third.ready();
        tell([third.texts[0].resume, third.seqs, states.at(-1).reason, stream.unanswered]);
        """
    )
    assert told == [None, [], "restarted", 0]


def test_no_more_frames_are_under_way_than_there_are_credits() -> None:
    told = run_node(
        SOCKET
        + """
        const stream = open({ policy: "every" });
        const socket = await next(1);
        socket.ready();
        const sent = [0, 1, 2].map((seq) => stream.send(frame, { seq }));
        socket.say({ type: "dropped", seq: 0 });
        tell([sent, stream.canSend, socket.seqs]);
        """
    )
    assert told == [[True, True, False], True, [0, 1]]


def test_a_slow_link_holds_frames_back_instead_of_queueing_them() -> None:
    told = run_node(
        SOCKET
        + """
        const stream = open({}, { mostUnanswered: 3 });
        const socket = await next(1);
        socket.ready();
        const sent = [0, 1, 2, 3].map((seq) => stream.send(frame, { seq }));
        socket.say({ type: "result", seq: 0 });
        socket.bufferedAmount = 1 << 30;
        tell([sent, stream.canSend]);
        """
    )
    assert told == [[True, True, True, False], False]


def test_a_link_that_fell_silent_is_taken_for_cut() -> None:
    told = run_node(
        SOCKET
        + """
        const stream = open({}, { answerWithinMs: 50 });
        const first = await next(1);
        first.ready();
        stream.send(frame, { seq: 0 });
        const second = await next(2);
        second.ready({ resumed: true });
        first.say({ type: "result", seq: 0 });
        tell([first.closedWith, second.texts[0].resume, second.seqs, stream.unanswered]);
        """
    )
    # Not 1000: should the link wake up after all, that would end the session.
    assert told == [4000, "secret", [0], 1]


def test_an_error_that_is_final_ends_the_stream_with_the_servers_sentence() -> None:
    told = run_node(
        SOCKET
        + """
        const stream = open();
        const socket = await next(1);
        const end = stream.finish().catch((error) => [error.code, error.message]);
        socket.say({ type: "error", code: "wrong_size", message: "Not so.", retryable: false });
        socket.cut(1007);
        const { state, reason } = states.at(-1);
        tell([state, reason, await end, sockets.length]);
        """
    )
    assert told == ["failed", "Not so.", ["wrong_size", "Not so."], 1]


def test_an_idle_session_rests_until_the_next_frame() -> None:
    told = run_node(
        SOCKET
        + """
        const stream = open();
        (await next(1)).ready();
        sockets[0].cut(4002);
        const resting = stream.state;
        const isSent = stream.send(frame, { seq: 0 });
        const second = await next(2);
        tell([resting, isSent, second.texts[0].resume]);
        """
    )
    assert told == ["parked", False, "secret"]


def test_each_connection_shows_a_ticket_of_its_own() -> None:
    told = run_node(
        SOCKET
        + """
        let count = 0;
        open({}, { ticket: async () => `t/${count += 1}` });
        (await next(1)).ready();
        sockets[0].cut();
        const second = await next(2);
        tell([sockets[0].url, second.url]);
        """
    )
    assert told == [f"ws://echo/v1/stream?ticket=t%2F{count}" for count in (1, 2)]


KEEPS = "const keeps = { resume_within_s: 60 };"


def test_after_a_kill_the_answered_frames_that_were_not_saved_come_before_the_unanswered() -> None:
    told = run_node(
        SOCKET
        + KEEPS
        + """
        const stream = open({ policy: "every" });
        const first = await next(1);
        first.ready({ ...keeps, credits: 3 });
        const send = (socket, seq) => stream.send(frame, { seq });
        const result = (socket, seq, saved_seq) => socket.say({ type: "result", seq, saved_seq });
        for (const seq of [0, 1, 2]) send(first, seq);
        result(first, 0, null);
        result(first, 1, null);
        send(first, 3);
        send(first, 4);
        result(first, 2, 0);
        first.cut();
        const second = await next(2);
        second.ready({ ...keeps, credits: 3, resumed: true, last_seq: 0 });
        const atOnce = [...second.seqs];
        const { resent, sentSeq } = states.at(-1);
        const canSend = [stream.canSend];
        result(second, 1, 0);
        canSend.push(stream.canSend);
        result(second, 2, 0);
        canSend.push(stream.canSend);
        tell([atOnce, second.seqs, resent, sentSeq, canSend]);
        """
    )
    # No more than the credits are under way at any time.
    assert told == [[1, 2, 3], [1, 2, 3, 4], 4, 4, [False, False, True]]


def test_where_newer_frames_replace_those_that_wait_each_is_sent_again_alone() -> None:
    told = run_node(
        SOCKET
        + KEEPS
        + """
        const stream = open({ policy: "latest" });
        const first = await next(1);
        first.ready(keeps);
        for (const seq of [0, 1, 2, 3, 4]) stream.send(frame, { seq });
        first.say({ type: "result", seq: 0, saved_seq: null });
        first.say({ type: "dropped", seq: 1 });
        first.say({ type: "result", seq: 2, saved_seq: null });
        first.cut();
        const second = await next(2);
        second.ready({ ...keeps, resumed: true, last_seq: null });
        const seen = [[[...second.seqs], stream.canSend]];
        for (const seq of [0, 2]) {
          second.say({ type: "result", seq, saved_seq: null });
          seen.push([[...second.seqs], stream.canSend]);
        }
        tell(seen);
        """
    )
    assert told == [[[0], False], [[0, 2], False], [[0, 2, 3, 4], True]]


def test_what_was_told_before_a_kill_is_not_told_again() -> None:
    told = run_node(
        SOCKET
        + KEEPS
        + """
        const stream = open({ policy: "every" });
        const heard = [];
        for (const type of ["result", "beat"]) {
          stream.addEventListener(type, ({ detail: { seq, number, run } }) => {
            heard.push([type, seq ?? number, run]);
          });
        }
        const answer = (socket, seq, run) => {
          socket.say({ type: "result", seq, saved_seq: null, run });
        };
        const beat = (socket, number, revision, run) => {
          socket.say({ type: "beat", number, revision, run });
        };
        const first = await next(1);
        first.ready(keeps);
        for (const seq of [0, 1]) stream.send(frame, { seq });
        answer(first, 0, 1);
        beat(first, 0, 0, 1);
        first.cut();
        const second = await next(2);
        second.ready({ ...keeps, resumed: true, last_seq: null });
        answer(second, 0, 2);
        beat(second, 0, 0, 2);
        answer(second, 1, 2);
        beat(second, 0, 1, 2);
        tell(heard);
        """
    )
    assert told == [["result", 0, 1], ["beat", 0, 1], ["result", 1, 2], ["beat", 0, 2]]


def test_a_second_kill_while_frames_are_sent_again_loses_none_of_them() -> None:
    told = run_node(
        SOCKET
        + KEEPS
        + """
        const stream = open({ policy: "latest" });
        const first = await next(1);
        first.ready(keeps);
        for (const seq of [0, 1, 2]) stream.send(frame, { seq });
        for (const seq of [0, 1, 2]) first.say({ type: "result", seq, saved_seq: null });
        const end = stream.finish();
        first.cut();
        const second = await next(2);
        second.ready({ ...keeps, resumed: true, last_seq: null });
        second.say({ type: "result", seq: 0, saved_seq: null });
        second.cut();
        const third = await next(3);
        third.ready({ ...keeps, resumed: true, last_seq: null });
        third.say({ type: "result", seq: 0, saved_seq: null });
        const early = third.texts.length;
        third.say({ type: "result", seq: 1, saved_seq: null });
        tell([second.seqs, third.seqs, early, third.texts.at(-1)]);
        """
    )
    # Only hello was said before the last of them was sent; then bye.
    assert told == [[0, 1], [0, 1, 2], 1, {"type": "bye"}]


def test_a_killed_server_is_sent_the_dropped_packets_too_where_later_ones_build_on_them() -> None:
    told = run_node(
        SOCKET
        + KEEPS
        + """
        const seen = [];
        for (const [number, codec] of [[1, "h264"], [3, "jpeg"]]) {
          const stream = open({ policy: "latest", codec });
          const first = await next(number);
          first.ready(keeps);
          for (const seq of [0, 1, 2]) stream.send(frame, { seq });
          first.say({ type: "result", seq: 0, saved_seq: null });
          first.say({ type: "dropped", seq: 1, reason: "replaced" });
          first.say({ type: "result", seq: 2, saved_seq: null });
          first.cut();
          const second = await next(number + 1);
          second.ready({ ...keeps, resumed: true, last_seq: null });
          for (const seq of [0, 1, 2]) second.say({ type: "result", seq, saved_seq: null });
          seen.push(second.seqs);
        }
        tell(seen);
        """
    )
    assert told == [[0, 1, 2], [0, 2]]


def test_no_more_is_kept_than_was_allowed_and_nothing_for_a_server_that_keeps_nothing() -> None:
    told = run_node(
        SOCKET
        + KEEPS
        + """
        const seen = [];
        const cases = [[1, keeps, { mostKeptBytes: 80 }], [3, { resume_within_s: 0 }, {}]];
        for (const [number, ready, options] of cases) {
          const stream = open({ policy: "latest" }, options);
          const first = await next(number);
          first.ready(ready);
          for (const seq of [0, 1, 2]) {
            stream.send(frame, { seq });
            first.say({ type: "result", seq, saved_seq: null });
          }
          first.cut();
          const second = await next(number + 1);
          second.ready({ ...ready, resumed: true, last_seq: null });
          seen.push(states.at(-1).resent);
        }
        tell(seen);
        """
    )
    # A message of 36 bytes: two of them have room.
    assert told == [2, 0]
