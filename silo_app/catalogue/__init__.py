"""What a silo holds: patients, studies, views, findings, refusals, in SQLite."""

from silo_app.catalogue.catalogue import Catalogue
from silo_app.catalogue.contents import ContentKey
from silo_app.catalogue.pseudonyms import SiloKey
from silo_app.catalogue.records import (
    CatalogueCounts,
    FileRecord,
    FindingCount,
    Label,
    Origin,
    Refusal,
    ViewKeys,
    ViewRecord,
)
from silo_app.catalogue.vault import StudyIdentity, Vault

__all__ = [
    "Catalogue",
    "CatalogueCounts",
    "ContentKey",
    "FileRecord",
    "FindingCount",
    "Label",
    "Origin",
    "Refusal",
    "SiloKey",
    "StudyIdentity",
    "Vault",
    "ViewKeys",
    "ViewRecord",
]
