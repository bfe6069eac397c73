"""Content items: the tree that a structured report is.

Source:
    DICOM PS3.3 C.17.3 (document content), C.18 (macros of the value types).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from server.export.objects import coded, reference

Code = tuple[str, str, str]
"""Value, scheme and meaning."""

PERCENT: Code = ("%", "UCUM", "percent")
MILLILITRE: Code = ("ml", "UCUM", "ml")
CENTIMETRE: Code = ("cm", "UCUM", "cm")
PER_MINUTE: Code = ("/min", "UCUM", "/min")


def item(
    relationship: str, value_type: str, concept: Code | None, children: Sequence[Dataset] = ()
) -> Dataset:
    """Begin a content item.

    Args:
        relationship: to its parent.
        value_type: its ValueType.
        concept: its name, None where it needs none.
        children: what it holds.
    """
    made = Dataset()
    made.RelationshipType = relationship
    made.ValueType = value_type
    if concept is not None:
        made.ConceptNameCodeSequence = [coded(*concept)]
    if children:
        made.ContentSequence = list(children)
    return made


def container(relationship: str, concept: Code, children: Sequence[Dataset]) -> Dataset:
    """A heading with what stands under it."""
    made = item(relationship, "CONTAINER", concept, children)
    made.ContinuityOfContent = "SEPARATE"
    return made


def text(relationship: str, concept: Code, words: str) -> Dataset:
    """Free text."""
    made = item(relationship, "TEXT", concept)
    made.TextValue = words
    return made


def code(
    relationship: str, concept: Code, value: Code, children: Sequence[Dataset] = ()
) -> Dataset:
    """A coded answer."""
    made = item(relationship, "CODE", concept, children)
    made.ConceptCodeSequence = [coded(*value)]
    return made


def uid_reference(relationship: str, concept: Code, uid: str) -> Dataset:
    """A UID."""
    made = item(relationship, "UIDREF", concept)
    made.UID = uid
    return made


def number(
    relationship: str, concept: Code, value: float, unit: Code, children: Sequence[Dataset] = ()
) -> Dataset:
    """A measured value."""
    made = item(relationship, "NUM", concept, children)
    measured = Dataset()
    measured.NumericValue = f"{value:.6g}"
    measured.MeasurementUnitsCodeSequence = [coded(*unit)]
    made.MeasuredValueSequence = [measured]
    return made


def no_number(
    relationship: str, concept: Code, qualifier: Code, children: Sequence[Dataset] = ()
) -> Dataset:
    """A value that is absent, and why."""
    made = item(relationship, "NUM", concept, children)
    made.MeasuredValueSequence = []
    made.NumericValueQualifierCodeSequence = [coded(*qualifier)]
    return made


def image(
    relationship: str,
    concept: Code | None,
    sop_class: str,
    sop_instance: str,
    frames: Sequence[int],
) -> Dataset:
    """Frames of an image, counted from 0; all of it where there are none."""
    made = item(relationship, "IMAGE", concept)
    referenced = reference(sop_class, sop_instance)
    if frames:
        referenced.ReferencedFrameNumber = [index + 1 for index in frames]
    made.ReferencedSOPSequence = [referenced]
    return made


def polyline(
    concept: Code, points_P2: NDArray[np.floating], scale_2: NDArray[np.float64], shown_on: Dataset
) -> Dataset:
    """A line in an image.

    Args:
        concept: purpose of the reference.
        points_P2: (row, column), pixel centres at whole numbers.
        scale_2: rows and columns of the image as it is stored over those that these are on.
        shown_on: the image item, selected from.
    """
    made = item("INFERRED FROM", "SCOORD", concept, [shown_on])
    made.GraphicType = "POLYLINE"
    # The corner of the first pixel is 0 \ 0 here (C.18.6.1.1), and column comes before row.
    xy_P2 = ((np.asarray(points_P2, np.float64) + 0.5) * scale_2)[:, ::-1]
    made.GraphicData = [round(float(value), 2) for value in xy_P2.ravel()]
    return made
