"""What a listing of an archive says of an image: its name here, and a number that changes when its data are corrected."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from silo_app.imaging.sources.source import SourceFile

__all__ = ["STUDY_KEYWORDS", "Instance", "gone", "instance_of", "remote_file"]

STUDY_KEYWORDS = ("PatientID", "IssuerOfPatientID", "PatientSex", "PatientBirthDate", "StudyDate", "AccessionNumber")
"""Asked for with every study: an archive that corrects one of these holds another image under the same UID."""


class Instance(NamedTuple):
    """The three UIDs by which an archive finds an image."""

    study: str
    series: str
    sop: str


def remote_file(instance: Instance, facts: Mapping[str, str]) -> SourceFile:
    """Return an image as a listing names it, with what it says about its study."""
    name = "/".join(instance)
    content = json.dumps(sorted(facts.items())).encode()
    mark = int(hashlib.sha256(content).hexdigest()[:15], 16)
    return SourceFile(name=name, path=Path(name), size=0, mtime_ns=mark)


def instance_of(name: str) -> Instance:
    """Return the UIDs in a name made by `remote_file`."""
    return Instance(*name.split("/", 2))


def gone(names: Iterable[str], held: Mapping[tuple[str, str], set[str]]) -> list[str]:
    """Return the names whose image is not among those held, which are by study and series."""
    wanted = ((name, instance_of(name)) for name in names)
    return [name for name, (study, series, sop) in wanted if sop not in held[study, series]]
