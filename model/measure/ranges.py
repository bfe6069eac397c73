"""Normal ranges as a versioned table beside the code: context for a reader, never a verdict."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from model.errors import MeasurementError

TABLE = Path(__file__).with_name("normal_ranges.json")


@lru_cache(maxsize=1)
def normal_ranges() -> dict[str, Any]:
    """The table: ``version``, ``source``, ``note`` and ``ranges`` of men and women.

    Raises:
        MeasurementError: the table is damaged.
    """
    table: dict[str, Any] = json.loads(TABLE.read_text(encoding="utf-8"))
    for row in table["ranges"]:
        for low, high in (row["men"], row["women"]):
            if not 0 <= low < high:
                raise MeasurementError(f"{row['name']}: a range goes from low to high")
    return table
