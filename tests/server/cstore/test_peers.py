"""Who may send."""

import pytest

from server.cstore.peers import Peers
from server.errors import SettingsError


@pytest.mark.parametrize(
    ("told", "title", "address", "may"),
    [
        ("", "ANY", "192.0.2.1", True),
        ("PACS", "PACS", "192.0.2.1", True),
        ("PACS", "PACS ", "2001:db8::1", True),
        ("PACS", "CART", "192.0.2.1", False),
        ("PACS@10.0.0.7", "PACS", "10.0.0.7", True),
        ("PACS@10.0.0.7", "PACS", "10.0.0.8", False),
        ("PACS@10.0.0.7", "PACS", "::ffff:10.0.0.7", True),
        ("A@10.0.0.1, *@10.1.0.0/16", "B", "10.1.2.3", True),
        ("A@10.0.0.1, *@10.1.0.0/16", "B", "10.0.0.1", False),
        ("*@fd00::/8", "B", "fd00::1", True),
        ("ROOM@2@10.0.0.1", "ROOM@2", "10.0.0.1", True),
    ],
)
def test_a_peer_is_known_by_title_and_address(
    told: str, title: str, address: str, may: bool
) -> None:
    assert Peers(told).know(title, address) == may


def test_an_address_of_no_peer_is_not_listened_to() -> None:
    peers = Peers("PACS@10.0.0.7")
    assert peers.reach_from("10.0.0.7")
    assert not peers.reach_from("10.0.0.8")
    assert Peers("PACS").reach_from("10.0.0.8")


@pytest.mark.parametrize("told", ["@10.0.0.7", "PACS@nowhere", "PACS@10.0.0.1/8", "A" * 17])
def test_a_list_that_is_none_is_refused(told: str) -> None:
    with pytest.raises(SettingsError, match="GDKVM_DICOM_PEERS"):
        Peers(told)
