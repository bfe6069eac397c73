from pathlib import Path

import pytest

from model.training.processor import has_bfloat16

CPUINFO = Path("/proc/cpuinfo")


@pytest.mark.skipif(not CPUINFO.is_file(), reason="the system lists no flags of its processor")
def test_bfloat16_is_what_the_kernel_lists_of_the_processor() -> None:
    flags = set(CPUINFO.read_text(encoding="utf-8").split())
    assert has_bfloat16() == bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})
