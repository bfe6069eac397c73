"""The browser's client, run by Node: the bytes on the wire and its words for a failure."""

import json
import re
from dataclasses import asdict

import pytest

from model import Beat
from model.measure.biplane import counted_beats
from server.ingest.clip import WARNINGS
from tests.clients.node import ROOT, run_node

PROTOCOL = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")

HEADERS = [
    ({"codec": "jpeg", "seq": "7", "timeUs": "233333"}, "ffd8ff"),
    ({"codec": "gray8", "seq": "0", "timeUs": None}, "00010203"),
    ({"codec": "mjpeg", "seq": str(2**64 - 1), "timeUs": "-1"}, "2a"),
]
"""The examples of docs/protocol.md, in its order."""


def documented_messages() -> list[str]:
    found = re.findall(r"^  `(47444b46[0-9a-f ]+)`", PROTOCOL, re.MULTILINE)
    return [message.replace(" ", "") for message in found]


def test_a_frame_has_the_documented_bytes() -> None:
    script = f"""
        import {{ encodeFrame }} from "./gdkvm.js";
        const toHex = (buffer) => Buffer.from(buffer).toString("hex");
        const big = (text) => text === null ? null : BigInt(text);
        const messages = {json.dumps(HEADERS)}.map(([header, payload]) => toHex(encodeFrame(
          Buffer.from(payload, "hex"),
          {{ codec: header.codec, seq: big(header.seq), timeUs: big(header.timeUs) }},
        )));
        console.log(JSON.stringify(messages));
    """
    assert run_node(script) == documented_messages()


def test_runs_unpack_to_the_mask_that_they_were_counted_from() -> None:
    script = """
        import { decodeRuns } from "./gdkvm.js";
        const masks = [decodeRuns([2, 3, 1], [2, 3]), decodeRuns([0, 1, 5], [2, 3])];
        console.log(JSON.stringify(masks.map((mask) => [...mask])));
    """
    assert run_node(script) == [[0, 0, 1, 1, 1, 0], [1, 0, 0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (415, {"code": "not_a_clip", "detail": "Neither DICOM nor video."},
         ["not_a_clip", "Neither DICOM nor video.", False]),
        (503, {"code": "full", "detail": "Try later."}, ["full", "Try later.", True]),
        (502, None, ["http_error", "The server answered 502.", True]),
    ],
)  # fmt: skip
def test_a_problem_document_becomes_an_error_with_its_code_and_sentence(
    status: int, body: dict[str, str] | None, expected: list[object]
) -> None:
    script = f"""
        import {{ GdkvmServer }} from "./gdkvm.js";
        const body = {json.dumps("<html>" if body is None else json.dumps(body))};
        globalThis.fetch = async () => new Response(body, {{ status: {status} }});
        const sending = new GdkvmServer().upload(new Blob(["rubbish"]));
        const error = await sending.catch((caught) => caught);
        console.log(JSON.stringify([error.code, error.message, error.retryable]));
    """
    assert run_node(script) == expected


@pytest.mark.parametrize("status", [200, 202])
def test_an_upload_is_answered_with_the_name_of_its_clip(status: int) -> None:
    answer = {"ef": {"percent": 55.0}} if status == 200 else {"state": "queued"}
    script = f"""
        import {{ GdkvmServer }} from "./gdkvm.js";
        const asked = [];
        globalThis.fetch = async (url, options) => {{
          const {{ headers: sent, method, body }} = options;
          asked.push([url, method, sent["Content-Type"], sent.Authorization, body.size]);
          const headers = {{ Location: "/v1/clips/c_1-_x" }};
          return new Response({json.dumps(json.dumps(answer))}, {{ status: {status}, headers }});
        }};
        const told = await new GdkvmServer({{ key: "k" }}).upload(
          new Blob(["clip"]), {{ view: "A2C", waitS: 5 }},
        );
        console.log(JSON.stringify([told, asked]));
    """
    told, asked = run_node(script)
    assert told["id"] == "c_1-_x"
    assert ("ef" in told) == (status == 200)
    assert asked == [
        ["/v1/clips?wait_s=5&view=A2C", "POST", "application/octet-stream", "Bearer k", 4]
    ]


def test_a_server_that_does_not_answer_is_an_error_that_may_be_tried_again() -> None:
    script = """
        import { GdkvmServer } from "./gdkvm.js";
        globalThis.fetch = async () => { throw new TypeError("network"); };
        const error = await new GdkvmServer().clips().catch((caught) => caught);
        console.log(JSON.stringify([error.code, error.retryable]));
    """
    assert run_node(script) == ["unreachable", True]


def test_a_reason_is_read_out_in_words_whether_known_or_new() -> None:
    code = "import { reasonInWords } from './words.js';"
    named = run_node(f"{code} console.log(JSON.stringify(reasonInWords('no_left_ventricle')))")
    unknown = run_node(f"{code} console.log(JSON.stringify(reasonInWords('some_new_reason')))")
    assert (named, unknown) == ("no left ventricle is seen", "some new reason")


def test_one_is_singular_and_any_other_number_plural() -> None:
    code = "import { counted } from './words.js';"
    said = run_node(f"{code} console.log(JSON.stringify([0, 1, 2].map((n) => counted(n, 'beat'))))")
    assert said == ["0 beats", "1 beat", "2 beats"]


def test_the_beats_not_called_unused_are_those_that_the_ef_counts() -> None:
    halves = [heartbeat(0, 20, 62.0, is_complete=False), heartbeat(1, 20, 52.0, is_complete=False)]
    other = heartbeat(2, 50, 55.0, is_complete=False)
    whole = heartbeat(3, 80, 58.0)
    rejected = heartbeat(4, 110, 90.0, "ef_out_of_range")
    script = """
        import { whyUnused } from "./words.js";
        const beats = JSON.parse(process.argv.at(-1));
        console.log(JSON.stringify(beats.map((beat) => whyUnused(beat, beats))));
    """
    for beats in (halves, [*halves, other], [*halves, whole], [whole, rejected], [rejected]):
        said = run_node(script, json.dumps([asdict(beat) for beat in beats]))
        used = [beat for beat, words in zip(beats, said, strict=True) if not words]
        assert used == counted_beats(beats)


def heartbeat(
    number: int, ed_seq: int, ef_percent: float, *reasons: str, is_complete: bool = True
) -> Beat:
    seqs, volumes = (ed_seq, ed_seq + 10), (None, None)
    return Beat(number, 0, *seqs, None, None, *volumes, ef_percent, 40.0, is_complete, reasons)


def test_every_reason_that_the_server_gives_is_known_in_words() -> None:
    known = run_node(
        """
        import { reasonInWords } from "./words.js";
        const codes = JSON.parse(process.argv.at(-1));
        const isUnknown = (code) => reasonInWords(code) === code.replaceAll("_", " ");
        console.log(JSON.stringify(codes.filter(isUnknown)));
    """,
        json.dumps(sorted(WARNINGS)),
    )
    assert known == []


def test_a_clip_is_followed_to_its_end_over_a_broken_connection() -> None:
    script = """
        import { GdkvmServer } from "./gdkvm.js";
        const event = (state) => `event: ${state}\\ndata: {"state": "${state}"}\\n\\n`;
        const bodies = [
          [event("queued"), event("running").slice(0, 9)],
          [event("running").slice(0, 11), event("running").slice(11) + event("done")],
        ];
        globalThis.fetch = async (url) => {
          if (!url.endsWith("/events")) return new Response('{"state": "running"}');
          const parts = bodies.shift().map((text) => new TextEncoder().encode(text));
          const body = new ReadableStream({
            pull(controller) {
              if (parts.length) controller.enqueue(parts.shift());
              else if (bodies.length) controller.error(new TypeError("cut"));
              else controller.close();
            },
          });
          return new Response(body);
        };
        const states = [];
        for await (const { state } of new GdkvmServer().follow("c_1")) states.push(state);
        console.log(JSON.stringify(states));
    """
    assert run_node(script) == ["queued", "running", "done"]


def test_a_clip_that_is_deleted_while_it_is_followed_ends_with_the_servers_sentence() -> None:
    script = """
        import { GdkvmServer } from "./gdkvm.js";
        globalThis.fetch = async (url) => url.endsWith("/events")
          ? new Response('event: queued\\ndata: {"state": "queued"}\\n\\n')
          : new Response('{"code": "not_found", "detail": "No such clip."}', { status: 404 });
        const told = [];
        try {
          for await (const { state } of new GdkvmServer().follow("c_1")) told.push(state);
        } catch (error) {
          told.push(error.code, error.message);
        }
        console.log(JSON.stringify(told));
    """
    assert run_node(script) == ["queued", "not_found", "No such clip."]
