"""What the C library does with memory that a training step frees."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> None:
    """Keep it for the next step, for as long as this process lives.

    Every step asks for what the one before freed, up to a gigabyte. By default its pages go back to
    the system in between, and each costs a fault when it comes again.
    Nothing happens where the C library has no such switch.

    Source:
        mallopt(3): M_MMAP_MAX 0 takes large blocks from the heap too, M_TRIM_THRESHOLD -1 never
        gives its end back.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)
