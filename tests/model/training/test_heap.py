import os
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
from model.training.heap import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

if sys.argv[1] == "kept":
    keep_freed_memory()
block = bytearray(b"x") * (64 << 20)
del block
before = faults()
block = bytearray(b"x") * (64 << 20)
print(faults() - before)
"""


def has_mallopt() -> bool:
    """Whether the C library is GNU's."""
    return "CS_GNU_LIBC_VERSION" in os.confstr_names and bool(os.confstr("CS_GNU_LIBC_VERSION"))


@pytest.mark.skipif(not has_mallopt(), reason="this C library always gives freed memory back")
def test_a_block_that_was_freed_is_had_again_without_a_page_fault() -> None:
    found = {
        word: int(subprocess.check_output([sys.executable, "-c", FAULTS, word]))
        for word in ("given back", "kept")
    }
    pages = (64 << 20) // os.sysconf("SC_PAGE_SIZE")
    assert found["given back"] >= pages // 512  # huge pages are of 512
    assert found["kept"] < min(10, pages // 512)
