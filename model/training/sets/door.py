"""The one door to a data set: which form a folder has, and what lies in it."""

from pathlib import Path

from model.errors import FrameError
from model.training.sets.camus import find_camus, recognise_camus
from model.training.sets.dicom import find_dicom, recognise_dicom
from model.training.sets.echonet import find_echonet, recognise_echonet
from model.training.sets.stills import find_stills, recognise_stills
from model.training.sets.study import DataSet

FORMS = """\
  A4C PNG stills: {train,valid,test}/PATIENT_4CH_ED.png, ..._ED_gt.png, ..._ES.png, ..._ES_gt.png
  CAMUS, NIfTI release: patient0001/patient0001_4CH_ED.nii.gz ..., database_split/
  CAMUS, MetaImage release: patient0001/patient0001_4CH_ED.mhd ..., listSubGroups/
  EchoNet-Dynamic: FileList.csv, VolumeTracings.csv, Videos/
  DICOM clips with masks: {train,valid,test}/CLIP/ with a DICOM file and masks.npz or seg.dcm"""


def open_set(root: Path) -> DataSet:
    """Find out what a folder holds. Nothing is decoded yet; ``check`` refuses what is not whole.

    Raises:
        FrameError: no such folder, or none of the forms that are read; they are listed.
    """
    if not root.is_dir():
        raise FrameError(f"{root} is no folder")
    if recognise_echonet(root):
        return find_echonet(root)
    for folder in (root, root / "database_nifti", root / "CAMUS_public"):
        release = recognise_camus(folder)
        if release is not None:
            return find_camus(folder, release)
    if recognise_stills(root):
        return find_stills(root)
    if recognise_dicom(root):
        return find_dicom(root)
    raise FrameError(f"{root} holds no data set of a form that is read here:\n{FORMS}")
