"""The browser's client, run by Node: the bytes on the wire and its words for a failure."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
WEB = ROOT / "clients" / "web"
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")

HEADERS = [
    ({"codec": "jpeg", "seq": "7", "timeUs": "233333"}, "ffd8ff"),
    ({"codec": "gray8", "seq": "0", "timeUs": None}, "00010203"),
    ({"codec": "mjpeg", "seq": str(2**64 - 1), "timeUs": "-1"}, "2a"),
]
"""The examples of docs/protocol.md, in its order."""


def run_node(script: str) -> Any:
    """Run a module that imports from the client and prints one JSON value."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not on the path")
    done = subprocess.run(
        [node, "--input-type=module", "--eval", script],
        cwd=WEB, check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return json.loads(done.stdout)


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
        import {{ uploadClip }} from "./gdkvm.js";
        const body = {json.dumps("<html>" if body is None else json.dumps(body))};
        globalThis.fetch = async () => new Response(body, {{ status: {status} }});
        const error = await uploadClip(new Blob(["rubbish"])).catch((caught) => caught);
        console.log(JSON.stringify([error.code, error.message, error.retryable]));
    """
    assert run_node(script) == expected


@pytest.mark.parametrize("status", [200, 202])
def test_an_upload_is_answered_with_the_name_of_its_clip(status: int) -> None:
    answer = {"ef": {"percent": 55.0}} if status == 200 else {"state": "queued"}
    script = f"""
        import {{ uploadClip }} from "./gdkvm.js";
        const asked = [];
        globalThis.fetch = async (url, options) => {{
          asked.push([url, options.method, options.headers["Content-Type"], options.body.size]);
          const headers = {{ Location: "/v1/clips/c_1-_x" }};
          return new Response({json.dumps(json.dumps(answer))}, {{ status: {status}, headers }});
        }};
        const told = await uploadClip(new Blob(["clip"]), {{ view: "A2C", waitS: 5 }});
        console.log(JSON.stringify([told, asked]));
    """
    told, asked = run_node(script)
    assert told["id"] == "c_1-_x"
    assert ("ef" in told) == (status == 200)
    assert asked == [["/v1/clips?wait_s=5&view=A2C", "POST", "application/octet-stream", 4]]


def test_a_server_that_does_not_answer_is_an_error_that_may_be_tried_again() -> None:
    script = """
        import { askServer } from "./gdkvm.js";
        globalThis.fetch = async () => { throw new TypeError("network"); };
        const error = await askServer("/v1/clips").catch((caught) => caught);
        console.log(JSON.stringify([error.code, error.retryable]));
    """
    assert run_node(script) == ["unreachable", True]


def test_a_reason_is_read_out_in_words_whether_known_or_new() -> None:
    code = "import { reasonInWords } from './words.js';"
    named = run_node(f"{code} console.log(JSON.stringify(reasonInWords('no_left_ventricle')))")
    unknown = run_node(f"{code} console.log(JSON.stringify(reasonInWords('some_new_reason')))")
    assert (named, unknown) == ("no left ventricle is seen", "some new reason")
