"""From the results of two clips to one biplane measurement; the route and the command share it."""

from collections.abc import Mapping
from typing import Any

from model import EjectionFraction, MeasurementError, ViewDisks, measure_biplane, normal_ranges
from server.protocol import EfMessage

VIEWS = {"a4c": "A4C", "a2c": "A2C"}


def biplane_of(a4c: Mapping[str, Any], a2c: Mapping[str, Any]) -> dict[str, Any]:
    """Bring two results of ``docs/clips-api.md`` together.

    Raises:
        MeasurementError: a result says that it is of the other view, or is none of ours.
    """
    results = {"a4c": a4c, "a2c": a2c}
    found = measure_biplane(_view(a4c, "a4c"), _view(a2c, "a2c"))
    ef = EfMessage.of(found.ef).model_dump(mode="json")
    stroke = None
    if found.ef.edv_ml is not None and found.ef.esv_ml is not None:
        stroke = found.ef.edv_ml - found.ef.esv_ml
    rate = found.ef.heart_rate_bpm
    output = None if stroke is None or rate is None else stroke * rate / 1000
    return {
        "ef": ef,
        "stroke_volume_ml": _rounded(stroke),
        "cardiac_output_l_min": _rounded(output, 2),
        "differences": {
            "ed_length_percent": _rounded(found.ed_length_difference_percent),
            "es_length_percent": _rounded(found.es_length_difference_percent),
            "ef_points": _rounded(found.ef_difference_points),
        },
        "views": {
            name: {"view": each["clip"]["view"], "ef": each["ef"]} for name, each in results.items()
        },
        "normal_ranges": normal_ranges(),
        "model": {name: each.get("model") for name, each in results.items()},
    }


def _view(result: Mapping[str, Any], name: str) -> tuple[ViewDisks | None, EjectionFraction]:
    """What one clip's result says of its view."""
    try:
        told, wanted = result["clip"]["view"], VIEWS[name]
        disks, ef = result["disks"], dict(result["ef"])
        ef["reasons"] = tuple(ef["reasons"])
        interval = ef["interval"]
        ef["interval"] = None if interval is None else (float(interval[0]), float(interval[1]))
        known = EjectionFraction(fac_percent=None, **ef)
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise MeasurementError(
            f"{name} is no result of a clip with disks: work on the clip anew"
        ) from error
    if told is not None and told != wanted:
        raise MeasurementError(f"{name} names a clip whose view is {told}, wanted {wanted}")
    return disks and ViewDisks.from_json(disks), known


def _rounded(value: float | None, digits: int = 1) -> float | None:
    return None if value is None else round(value, digits)
