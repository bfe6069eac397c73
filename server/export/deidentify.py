"""Objects without the patient: the basic profile, for the attributes that are written here.

Source:
    DICOM PS3.15 annex E: table E.1-1 (what is removed, emptied or replaced), E.1.1 (the codes and
    flags that say so), E.3.1 (clean pixel data).
"""

import hashlib
import hmac
import secrets

from pydantic import SecretStr
from pydicom import Dataset

from server.export.objects import coded, uid_of

DUMMY_DATE, DUMMY_TIME = "20000101", "000000"

_REMOVED = (
    "IssuerOfPatientID", "StudyDescription", "PatientAge", "PatientSize", "PatientWeight",
    "InstanceCreationDate", "InstanceCreationTime", "SeriesDate", "SeriesTime",
    "TimezoneOffsetFromUTC",
)  # fmt: skip
_EMPTIED = (
    "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID", "AccessionNumber",
    "ReferringPhysicianName",
)  # fmt: skip
_STANDARD_ROOT = "1.2.840.10008."


class Deidentifier:
    """Replaces who by a pseudonym that only the holder of the key can link."""

    def __init__(self, key: bytes) -> None:
        """Take the secret that pseudonyms are made with; the same key gives the same ones."""
        self._key = key

    @classmethod
    def of(cls, secret: SecretStr | None) -> "Deidentifier":
        """Take a configured secret; without one, pseudonyms last as long as this process."""
        if secret is None:
            return cls(secrets.token_bytes(32))
        return cls(secret.get_secret_value().encode())

    def uid(self, original: str) -> str:
        """The UID that stands for another one."""
        return uid_of(self._digest("uid", original))

    def patient(self, made: Dataset) -> str:
        """The name that stands for an object's patient.

        One who has neither an identifier nor a name is taken for nobody of another study.

        Source:
            DICOM PS3.3 C.7.1.1 (an identifier is one of those that its issuer gave).
        """
        issuer = str(made.get("IssuerOfPatientID", ""))
        identifier = str(made.PatientID) and "\0".join(filter(None, (issuer, str(made.PatientID))))
        who = identifier or str(made.PatientName) or str(made.StudyInstanceUID)
        return f"ANON-{self._digest('patient', who).hex()[:16]}"

    def _digest(self, kind: str, text: str) -> bytes:
        return hmac.new(self._key, f"{kind}\0{text}".encode(), hashlib.sha256).digest()

    def apply(self, made: Dataset, *, are_pixels_clean: bool = False) -> None:
        """Take the patient out of an object, in place.

        Args:
            made: one that this program made.
            are_pixels_clean: it shows pictures, and only what lies inside the fan.
        """
        pseudonym = self.patient(made)
        for keyword in _REMOVED:
            if keyword in made:
                delattr(made, keyword)
        for keyword in _EMPTIED:
            setattr(made, keyword, "")
        made.PatientName = made.PatientID = pseudonym
        # Both are of type 1 in some objects, so that they are replaced and not emptied.
        made.ContentDate, made.ContentTime = DUMMY_DATE, DUMMY_TIME
        self._replace_uids(made)
        made.PatientIdentityRemoved = "YES"
        made.LongitudinalTemporalInformationModified = "REMOVED"
        made.DeidentificationMethod = "DICOM PS3.15 annex E, basic profile"
        codes = [coded("113100", "DCM", "Basic Application Confidentiality Profile")]
        if are_pixels_clean:
            codes.append(coded("113101", "DCM", "Clean Pixel Data Option"))
            made.BurnedInAnnotation = "NO"
        made.DeidentificationMethodCodeSequence = codes

    def _replace_uids(self, made: Dataset) -> None:
        for element in made.iterall():
            if element.VR == "UI" and element.value:
                original = str(element.value)
                if not original.startswith(_STANDARD_ROOT):
                    element.value = self.uid(original)
