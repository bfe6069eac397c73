"""From the studies of a data set to the patients that training clips are made of."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np

from model.errors import FrameError
from model.training.clips import Patient, place_patient, place_still
from model.training.sets import Recording, Study
from model.training.sets.study import named


def read_studies(
    studies: Sequence[Study],
    side: int,
    known: tuple[bool, bool, bool] = (True, True, True),
    *,
    frames_between: int = 0,
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
) -> list[Patient]:
    """Read studies, place them on the working grid and solve their motions.

    Args:
        studies: in the order in which the patients are wanted.
        side: working grid in pixels, twice the network's side.
        known: the structures that the masks of the set tell.
        frames_between: labelled frames kept between end diastole and end systole.
        workers: processes that do it.
        progress: called with the number of studies done.

    Raises:
        FrameError: files are missing, cut off or not what they should be; all are named.
    """
    place = partial(_place, side=side, frames_between=frames_between)
    patients, problems = [], []
    for done, made in enumerate(_each(place, studies, workers), start=1):
        if isinstance(made, str):
            problems.append(made)
        else:
            patients.append(replace(made, known=known))
        if progress is not None:
            progress(done)
    if problems:
        raise FrameError(named("the data set", problems))
    return patients


def _each(
    place: Callable[[Study], Patient | str], studies: Sequence[Study], workers: int
) -> Iterator[Patient | str]:
    if workers == 1:
        yield from map(place, studies)
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(place, studies, chunksize=4)


def _place(study: Study, side: int, frames_between: int) -> Patient | str:
    """The patient, or what is wrong with its files."""
    try:
        recording = study.read(frames_between > 0)
    except FrameError as error:
        return error.message
    first, last = ((recording.images[k], recording.labels[k]) for k in (0, -1))
    spacing_mm, is_cropped = recording.spacing_mm, recording.is_cropped
    patient = place_patient(study.name, first, last, side, spacing_mm, is_cropped)
    kept = _between(recording, frames_between)
    if not kept:
        return patient
    stills = [
        place_still(
            recording.images[recording.labelled[k]],
            recording.labels[k],
            None if is_cropped else first[0],
            side,
            spacing_mm,
        )
        for k in kept
    ]
    return replace(patient, between=tuple(stills))


def _between(recording: Recording, wanted: int) -> list[int]:
    """Places in ``labels`` of up to so many frames, at even steps, without both ends."""
    inner = len(recording.labels) - 2
    count = min(wanted, inner)
    if count < 1:
        return []
    steps = np.linspace(0, inner + 1, count + 2)[1:-1]
    return sorted({round(float(step)) for step in steps})


def folds_of(studies: Iterable[Study], folds: int) -> dict[str, int]:
    """The fold of every patient of a split, by the patient's name.

    Args:
        studies: all of the split, in every view, so that runs on some views have the same folds.
        folds: how many there are.
    """
    place = {patient: k for k, patient in enumerate(dict.fromkeys(s.patient for s in studies))}
    return {patient: k % folds for patient, k in place.items()}
