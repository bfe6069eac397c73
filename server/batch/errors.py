"""What goes wrong on an archive's way, beside what is wrong with a clip itself.

EchoError
  BatchError
    ListingError      listing      what to work on cannot be found out
    PlaceError        place        what the results are written to cannot be reached, or is taken
    FetchError        unreachable  one clip could not be brought here; trying again may help
    WorkerLostError   worker_lost  whatever worked on a clip ended with it
"""

from model import EchoError


class BatchError(EchoError):
    """Said on the command line and in the archive's rows, never over a wire."""


class ListingError(BatchError):
    """No such folder, manifest or server, or one that does not say what it has."""

    code = "listing"


class PlaceError(BatchError):
    """Results cannot be written where they are to be."""

    code = "place"


class FetchError(BatchError):
    """A clip that could not be brought here."""

    code = "unreachable"


class WorkerLostError(BatchError):
    """A worker that ended with a clip, or failed for a reason of ours."""

    code = "worker_lost"
