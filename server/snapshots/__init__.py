"""Sessions beyond their process: snapshots, sealed, in a store that several processes share."""

from server.snapshots.blob import pack, unpack
from server.snapshots.keeper import Found, Keeper, open_store
from server.snapshots.seal import Seal
from server.snapshots.store import Lease

__all__ = ["Found", "Keeper", "Lease", "Seal", "open_store", "pack", "unpack"]
