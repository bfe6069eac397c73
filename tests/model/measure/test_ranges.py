"""The table of normal ranges."""

from model import normal_ranges


def test_the_ranges_are_those_of_the_guideline() -> None:
    table = normal_ranges()
    rows = {row["name"]: row for row in table["ranges"]}
    # ef-and-measurement.md section 1.6; ASE/EACVI 2015.
    assert (rows["ejection_fraction"]["men"], rows["ejection_fraction"]["women"]) == (
        [52, 72], [54, 74],
    )  # fmt: skip
    assert rows["end_diastolic_volume"]["men"] == [62, 150]
    assert rows["end_diastolic_volume_per_area"]["women"] == [29, 61]
    assert table["version"]
    assert "2015" in table["source"]
