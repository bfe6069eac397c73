"""The one interface of what keeps snapshots beyond a process."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write one session's snapshot.

    Attributes:
        name: of the session in the store; see ``name_of``.
        epoch: rises with every claim; only the last one may write.
    """

    name: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Held:
    """What is kept of a session.

    Attributes:
        lease: of whoever claimed it last.
        stored: the snapshot, None where the session has ended.
    """

    lease: Lease
    stored: bytes | None


class SnapshotStore(Protocol):
    """Keeps one blob a session; safe to use by several processes at once, by one thread of each.

    Every method raises StoreError where the store cannot be reached or is broken.
    """

    def put(self, lease: Lease, stored: bytes | None, ttl_s: float) -> bool:
        """Write a snapshot, or None to say that the session has ended.

        Returns:
            False, with nothing written, where somebody claimed the session since.
        """

    def look(self, name: str) -> Held | None:
        """Read what is kept under a name, None for nothing; whoever has it goes on with it."""

    def claim(self, name: str, ttl_s: float) -> Held | None:
        """Take a session over: from now on nobody else's lease writes it.

        Args:
            name: of the session.
            ttl_s: what is found is kept at least so long.

        Returns:
            None where nothing is kept under this name, or no longer.
        """

    def find_moved(self, leases: Sequence[Lease]) -> list[Lease]:
        """Those leases that no longer write, since somebody claimed their sessions."""

    def close(self) -> None:
        """Let go of files and sockets."""
