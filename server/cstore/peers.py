"""Who may send: application entities and where they are."""

import re
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from server.errors import SettingsError

ANYBODY = "*"
_TITLE = re.compile(r"[\x20-\x5b\x5d-\x7e]{1,16}")
"""PS3.5 section 6.2, AE: up to 16 characters, no backslash."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One entry of the list: a title, or any, and addresses, or any."""

    title: str
    network: IPv4Network | IPv6Network | None

    def is_at(self, address: str) -> bool:
        """Whether it may come from there."""
        if self.network is None:
            return True
        found = ip_address(address.partition("%")[0])
        if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
            found = found.ipv4_mapped
        return found in self.network

    def is_called(self, title: str) -> bool:
        """Whether it may call itself that."""
        return self.title in (ANYBODY, title.strip())


class Peers:
    """Everybody who may send; without a list, whoever can reach the port."""

    def __init__(self, told: str) -> None:
        """Read a list such as ``PACS@10.0.0.7, *@10.1.0.0/16, CART``.

        Raises:
            SettingsError: it is none.
        """
        self._peers = [_peer(each.strip()) for each in told.split(",") if each.strip()]

    def reach_from(self, address: str) -> bool:
        """Whether any of them may be there, which is known before it says who it is."""
        return not self._peers or any(peer.is_at(address) for peer in self._peers)

    def know(self, title: str, address: str) -> bool:
        """Whether one of that name may be there."""
        if not self._peers:
            return True
        return any(peer.is_called(title) and peer.is_at(address) for peer in self._peers)


def _peer(told: str) -> Peer:
    title, _, place = told.rpartition("@") if "@" in told else (told, "", "")
    if not _TITLE.fullmatch(title.strip()):
        raise SettingsError("GDKVM_DICOM_PEERS: each is TITLE, TITLE@ADDRESS or *@ADDRESS")
    try:
        network = ip_network(place.strip()) if place else None
    except ValueError as error:
        raise SettingsError(
            "GDKVM_DICOM_PEERS: an address is like 10.0.0.7 or 10.1.0.0/16"
        ) from error
    return Peer(title.strip(), network)
