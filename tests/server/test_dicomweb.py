"""How an instance that was not taken is answered."""

import pytest

from model import EchoError
from server.clips.ledger import OvertakenError
from server.dicomweb import reason_of
from server.errors import AdmissionError, DrainingError, StorageError, StoreError


@pytest.mark.parametrize(
    "kind", [AdmissionError, DrainingError, StorageError, StoreError, OvertakenError]
)
def test_who_may_come_again_is_refused_for_want_of_resources(kind: type[EchoError]) -> None:
    # DICOM PS3.4 table B.2-1: A7xx, out of resources; Cxxx would blame the instance.
    assert reason_of(kind("not now")) & 0xFF00 == 0xA700
