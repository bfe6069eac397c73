"""What goes wrong on an archive's way, beside what is wrong with a clip itself.

EchoError
  ListingError      listing      what to work on cannot be found out
  FetchError        unreachable  one clip could not be brought here; trying again may help
  WorkerLostError   worker_lost  whatever worked on a clip ended with it
"""

from model import EchoError


class ListingError(EchoError):
    """No such folder, manifest or server, or one that does not say what it has."""

    code = "listing"


class FetchError(EchoError):
    """A clip that could not be brought here."""

    code = "unreachable"


class WorkerLostError(EchoError):
    """A worker that ended with a clip, or failed for a reason of ours."""

    code = "worker_lost"
