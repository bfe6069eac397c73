"""The streaming protocol as an AsyncAPI document, made from the messages that the code speaks.

Source:
    AsyncAPI specification 3.0.0; its websocket bindings 0.1.0.
"""

from typing import Any

from pydantic.json_schema import models_json_schema

from server.errors import WireCodes
from server.protocol import (
    HEADER,
    SUBPROTOCOL,
    BeatMessage,
    Bye,
    Drain,
    Dropped,
    ErrorMessage,
    Hello,
    Ready,
    Result,
    Summary,
)

CLIENT_MESSAGES = (Hello, Bye)
SERVER_MESSAGES = (Ready, Result, Dropped, BeatMessage, Summary, Drain, ErrorMessage)

CHANNEL = "stream"
FRAME = "frame"
_DEFINITION = "#/components/schemas/{model}"

HEADER_TEXT = f"""A header of {HEADER.size} bytes, little-endian, then the payload.

| offset | type | field |
| --- | --- | --- |
| 0 | char[4] | magic, `GDKF` |
| 4 | u8 | version, 1 |
| 5 | u8 | codec: 0 gray8, 1 rgb24, 2 jpeg, 3 png, 4 h264, 5 hevc, 6 mjpeg |
| 6 | u16 | flags, 0 |
| 8 | u64 | seq, rising within a session |
| 16 | i64 | time_us, acquisition time in microseconds; -2^63 where unknown |
| 24 | u32 | payload_bytes, exactly what follows the header |
| 28 | u32 | reserved, 0 |
"""


def asyncapi_document(version: str) -> dict[str, Any]:
    """The document of one server.

    Args:
        version: of the server.
    """
    models = (*CLIENT_MESSAGES, *SERVER_MESSAGES)
    _, schemas = models_json_schema(
        [(each, "serialization" if each in SERVER_MESSAGES else "validation") for each in models],
        ref_template=_DEFINITION,
    )
    messages = {_name(each): _message(each) for each in models} | {FRAME: _frame()}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "GDKVM Live, streaming",
            "version": version,
            "description": "Frames in, masks and measurements out. Research use only.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {CHANNEL: _channel(list(messages))},
        "operations": {
            "toServer": _operation("receive", [*map(_name, CLIENT_MESSAGES), FRAME]),
            "toClient": _operation("send", [*map(_name, SERVER_MESSAGES)]),
        },
        "components": {
            "messages": messages,
            "schemas": schemas["$defs"],
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer"},
                "ticket": {"type": "httpApiKey", "in": "query", "name": "ticket"},
            },
        },
        "x-close-codes": dict(sorted(WireCodes.CLOSE.items())),
    }


def _name(model: type) -> str:
    """The word in a message's field ``type``."""
    name: str = model.model_fields["type"].default  # type: ignore[attr-defined]
    return name


def _message(model: type) -> dict[str, Any]:
    return {
        "name": _name(model),
        "summary": (model.__doc__ or "").strip(),
        "contentType": "application/json",
        "payload": {"$ref": _DEFINITION.format(model=model.__name__)},
    }


def _frame() -> dict[str, Any]:
    return {
        "name": FRAME,
        "summary": "One frame, as a binary message.",
        "description": HEADER_TEXT,
        "contentType": "application/octet-stream",
        "payload": {"type": "string", "format": "binary"},
    }


def _channel(names: list[str]) -> dict[str, Any]:
    return {
        "address": "/v1/stream",
        "description": f"A websocket of the subprotocol {SUBPROTOCOL}: one session, one heart.",
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
        "bindings": {"ws": {"method": "GET", "bindingVersion": "0.1.0"}},
    }


def _operation(action: str, names: list[str]) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{CHANNEL}"},
        "messages": [{"$ref": f"#/channels/{CHANNEL}/messages/{name}"} for name in names],
    }
