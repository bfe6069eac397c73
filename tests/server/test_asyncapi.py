"""The AsyncAPI document says what is spoken: by the code, on the page, in a session."""

import json
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel

import server.protocol as protocol
from gdkvm_client import RleMask
from gdkvm_client import messages as client
from server.asyncapi import SERVER_MESSAGES, asyncapi_document
from server.errors import WireCodes
from server.settings import Settings
from tests.server.live import HELLO, Live, beating, live_server, packed

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
LINES = PAGE.split("## Whole messages")[1].split("```")[1].strip().splitlines()
DOCUMENT = asyncapi_document("1")


def check(message: dict[str, Any]) -> None:
    """Hold one message against what the document says of its type."""
    payload = DOCUMENT["components"]["messages"][message["type"]]["payload"]
    Draft202012Validator({**payload, "components": DOCUMENT["components"]}).validate(message)


def resolve(reference: str) -> Any:
    place: Any = DOCUMENT
    for step in reference.removeprefix("#/").split("/"):
        place = place[step]
    return place


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [each for inner in value.values() for each in references(inner)]
    return [each for inner in value for each in references(inner)] if type(value) is list else []


def test_every_reference_leads_somewhere() -> None:
    found = references(DOCUMENT)
    assert len(found) > 30
    for reference in found:
        assert resolve(reference)


def test_every_schema_is_one() -> None:
    for schema in DOCUMENT["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_every_message_of_the_code_is_in_the_document_and_has_a_direction() -> None:
    spoken = {
        each.model_fields["type"].default
        for each in vars(protocol).values()
        if isinstance(each, type) and issubclass(each, BaseModel) and "type" in each.model_fields
    }
    assert set(DOCUMENT["components"]["messages"]) == spoken | {"frame"}
    directed = [
        message["$ref"].rsplit("/", 1)[1]
        for operation in DOCUMENT["operations"].values()
        for message in operation["messages"]
    ]
    assert sorted(directed) == sorted(spoken | {"frame"})
    assert DOCUMENT["x-close-codes"] == WireCodes.CLOSE


def test_the_page_shows_one_message_of_each_kind_as_the_server_writes_it() -> None:
    kinds = {each.model_fields["type"].default: each for each in SERVER_MESSAGES}
    seen = []
    for line in LINES:
        values = json.loads(line)
        check(values)
        seen.append(values["type"])
        if values["type"] in kinds:
            assert kinds[values["type"]].model_validate(values).to_json() == line
        else:
            assert protocol.parse_message(line).model_dump_json() == line
    assert sorted(seen) == sorted(set(DOCUMENT["components"]["messages"]) - {"frame"})


def test_the_python_client_reads_every_message_that_the_page_shows() -> None:
    parsed = [client.parse_message(line) for line in LINES[2:]]
    assert None not in parsed
    result = next(each for each in parsed if isinstance(each, client.Result))
    assert isinstance(result.mask, RleMask)
    assert result.mask.of("myocardium").tolist() == [[False, True, True], [False, False, False]]
    summary = next(each for each in parsed if isinstance(each, client.Summary))
    assert (summary.ef.interval, summary.beats[0].reasons) == ((52.0, 62.1), ("edge_beat",))


def test_the_table_of_close_codes_on_the_page_is_that_of_the_code() -> None:
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| (\d{4}) \|", PAGE, re.MULTILINE)
    told = {code: int(close) for codes, close in rows for code in re.findall(r"`(\w+)`", codes)}
    assert {code: told.get(code) for code in WireCodes.CLOSE} == WireCodes.CLOSE


def test_the_examples_of_the_page_name_what_is_served_by_default() -> None:
    manifest = json.loads((ROOT / "weights" / "manifest.json").read_text())
    entry = manifest["models"][manifest["default"]]
    assert f'"network_size": {entry["config"]["network_size"]}' in PAGE
    assert f'"credits": {Settings().inbox_frames}' in PAGE


@pytest.mark.parametrize("encoding", ["rle", "png", "contour", "none"])
async def test_whatever_a_server_says_is_of_the_document(encoding: str, tmp_path: Path) -> None:
    with live_server(tmp_path) as live:
        async with live.talk(mask_encoding=encoding) as talk:
            check(talk.ready)
            for seq in (0, 1, 1, 2):
                await talk.say(beating(seq))
            heard = [await talk.hear() for _ in range(4)] + await talk.end()
        async with live.socket() as talk:
            await talk.say(HELLO)
            await talk.say(packed(0, b"short"))
            heard += (await talk.hear_all())[0]
        assert_served(live)
    for message in heard:
        check(message)
    assert {"result", "summary", "ready", "error"} <= {message["type"] for message in heard}


def assert_served(live: Live) -> None:
    assert live.http.get("/asyncapi.json").json() == asyncapi_document(version("gdkvm-live"))
