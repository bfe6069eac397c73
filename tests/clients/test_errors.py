from collections.abc import Iterator

import pytest

import gdkvm_client.errors
import server.errors
import server.ingest.errors
from gdkvm_client.errors import GdkvmError, ServerFaultError, error_of
from model import EchoError
from server.batch.errors import BatchError
from server.errors import WireCodes


def codes_of(kind: type[EchoError]) -> Iterator[str]:
    yield kind.code
    for child in kind.__subclasses__():
        yield from codes_of(child)


SAID = (set(codes_of(EchoError)) | set(WireCodes.HTTP) | set(WireCodes.CLOSE)) - {
    "bad_settings",
    *codes_of(BatchError),  # of the command line alone, as is the next
    server.errors.RecordingError.code,
    EchoError.code,
    server.errors.ProtocolError.code,
    server.errors.SocketGoneError.code,  # nobody is there to be told
}


@pytest.mark.parametrize("code", sorted(SAID))
def test_every_code_that_the_server_may_say_has_its_class(code: str) -> None:
    error = error_of(code, "a sentence", retryable=True)
    assert code in type(error).codes
    assert (error.code, str(error), error.retryable) == (code, "a sentence", True)


def test_no_code_has_two_classes() -> None:
    codes = [code for kind in GdkvmError.__subclasses__() for code in kind.codes]
    assert len(codes) == len(set(codes))


def test_a_code_of_a_newer_server_is_its_own_fault() -> None:
    assert isinstance(error_of("brand_new", "a sentence"), ServerFaultError)


def test_the_table_at_the_top_names_every_class() -> None:
    text = gdkvm_client.errors.__doc__ or ""
    assert all(kind.__name__ in text for kind in GdkvmError.__subclasses__())
