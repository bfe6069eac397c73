from datetime import UTC, datetime
from typing import Any

import pytest
from pydicom.uid import SegmentationStorage

from server.artefacts import Material
from server.export.objects import Kind, Maker, begin_object
from server.export.origin import Origin
from tests.server.export.conftest import IDENTITY
from tests.server.phantom import grey_predictor

KIND = Kind("seg", SegmentationStorage, "SEG", 1, "masks")
MADE = datetime(2024, 2, 29, 23, 30, tzinfo=UTC)


def made_from(attributes: dict[str, str]) -> Any:
    origin = Origin("1.2", "1.3", "1.4", "1.5", None, attributes, None, None)
    return begin_object(KIND, Maker(origin, grey_predictor().model, "1", MADE))


@pytest.mark.parametrize(
    ("zone", "day", "clock"),
    [("+0200", "20240301", "013000"), ("-0330", "20240229", "200000")],
)
def test_all_times_of_an_object_are_of_the_zone_that_its_clip_names(
    zone: str, day: str, clock: str
) -> None:
    """DICOM PS3.3 C.12.1.1: the offset holds for the study's times as well, which are copied."""
    made = made_from({"StudyDate": day, "StudyTime": "101112", "TimezoneOffsetFromUTC": zone})
    assert (made.TimezoneOffsetFromUTC, made.StudyTime) == (zone, "101112")
    assert (made.ContentDate, made.ContentTime) == (day, clock)


@pytest.mark.parametrize("zone", [None, "CET", "+9900"])
def test_no_zone_is_said_of_times_whose_zone_nobody_knows(zone: str | None) -> None:
    more = {} if zone is None else {"TimezoneOffsetFromUTC": zone}
    made = made_from({"StudyDate": "20240229", "StudyTime": "101112", **more})
    assert "TimezoneOffsetFromUTC" not in made
    assert made_from({}).TimezoneOffsetFromUTC == "+0000"


def test_the_zone_is_read_from_the_clip_s_header(heart: Material) -> None:
    made = begin_object(KIND, heart.maker())
    assert made.TimezoneOffsetFromUTC == IDENTITY["TimezoneOffsetFromUTC"]
