"""What the processor offers to training."""

from collections.abc import Mapping
from typing import Any

import torch


def has_bfloat16() -> bool:
    """Whether it has instructions for bfloat16, in which a step takes half as long.

    Without them bfloat16 is emulated, several times slower than float32. An older torch does not
    tell; this is false then.
    """
    tell = getattr(torch.cpu, "get_capabilities", dict)
    found: Mapping[str, Any] = tell()
    return any(found.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
