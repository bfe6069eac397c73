"""One websocket of a session: opened with hello, answered with ready, closed with a reason."""

from dataclasses import dataclass

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidMessage,
    InvalidStatus,
    InvalidURI,
)
from websockets.typing import Subprotocol

from gdkvm_client.errors import (
    BadAnswerError,
    ConnectionLostError,
    GdkvmError,
    InputError,
    error_of,
)
from gdkvm_client.messages import SUBPROTOCOL, Hello, Ready, parse_message

OPEN_TIMEOUT_S = 10.0
_LONGEST_MESSAGE = 64 << 20
_CODE_OF_STATUS = {401: "unauthorized", 403: "unauthorized", 404: "not_found", 503: "full"}


@dataclass(frozen=True, slots=True)
class Address:
    """Where the server is, and the key that opens it (None where it wants none)."""

    url: str
    key: str | None = None


async def open_socket(
    address: Address, hello: Hello, resume: str | None = None
) -> tuple[ClientConnection, Ready]:
    """Connect and say hello.

    Args:
        address: of ``/v1/stream``, beginning ``ws://`` or ``wss://``.
        hello: what will be sent.
        resume: token of a session to go on with.

    Raises:
        GdkvmError: no server there, or its refusal.
    """
    socket = await _connect(address)
    try:
        await socket.send(hello.to_json(resume))
        ready = parse_message(await socket.recv())
    except ConnectionClosed as error:
        raise lost(error) from error
    except BaseException:
        await socket.close()
        raise
    if isinstance(ready, Ready):
        return socket, ready
    await socket.close()
    if isinstance(ready, GdkvmError):
        raise ready
    raise BadAnswerError(f"ready must come first, got {type(ready).__name__}")


async def _connect(address: Address) -> ClientConnection:
    headers = {} if address.key is None else {"Authorization": f"Bearer {address.key}"}
    try:
        return await connect(
            address.url,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            additional_headers=headers,
            # Frames are compressed already, and deflating masks costs more than it saves.
            compression=None,
            max_size=_LONGEST_MESSAGE,
            open_timeout=OPEN_TIMEOUT_S,
            user_agent_header="gdkvm-client",
        )
    except (InvalidURI, ValueError) as error:
        raise InputError("bad_request", f"not a websocket address: {address.url}") from error
    except InvalidStatus as error:
        raise _refusal(error) from error
    except InvalidHandshake as error:
        if isinstance(error, InvalidMessage) and isinstance(error.__cause__, EOFError):
            raise ConnectionLostError(f"{address.url} hung up before it answered") from error
        raise BadAnswerError(f"no websocket of {SUBPROTOCOL} at {address.url}: {error}") from error
    except (OSError, EOFError, TimeoutError) as error:
        raise ConnectionLostError(f"no server answers at {address.url}: {error}") from error


def _refusal(error: InvalidStatus) -> GdkvmError:
    """Turn the status of a refused upgrade into the error that it stands for."""
    status = error.response.status_code
    code = _CODE_OF_STATUS.get(status, "bad_request" if status < 500 else "engine_failed")
    return error_of(code, f"the server refused the connection with status {status}", status == 503)


def lost(error: ConnectionClosed) -> ConnectionLostError:
    """Say that a socket closed without an error message before it."""
    return ConnectionLostError(f"the connection was cut: {error}")
