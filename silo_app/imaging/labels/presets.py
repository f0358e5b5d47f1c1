"""The label files of published chest X-ray sets, as layouts.

Column names and label names are those of the sets' own files: NIH ChestX-ray14 (Wang et al. 2017), CheXpert (Irvin et al.
2019), MIMIC-CXR-JPG (Johnson et al. 2019), PadChest (Bustos et al. 2020), VinDr-CXR (Nguyen et al. 2022), RSNA Pneumonia
Detection Challenge 2018. Raise a preset's version when what it reads, or what it makes of it, changes: every label names it.
"""

import ast
from dataclasses import replace

from silo_app.cases import Finding
from silo_app.imaging.labels.layout import CsvLayout
from silo_app.settings.labels import VALUES, PresetLabels

__all__ = ["PRESETS", "preset_layout"]

_NIH_FINDINGS = tuple(
    Finding(name)
    for name in (
        "Atelectasis",
        "Cardiomegaly",
        "Consolidation",
        "Edema",
        "Effusion",
        "Emphysema",
        "Fibrosis",
        "Hernia",
        "Infiltration",
        "Mass",
        "Nodule",
        "Pleural Thickening",
        "Pneumonia",
        "Pneumothorax",
    )
)

_NIH = CsvLayout(
    name="nih/1",
    about="NIH ChestX-ray14, Data_Entry_2017*.csv; a row by the image's name; of the 14 what is not named is absent",
    key_kind="image",
    key_column="Image Index",
    words_column="Finding Labels",
    split=lambda text: text.split("|"),
    scope=_NIH_FINDINGS,
)

_CHEXPERT_COLUMNS = {
    "No Finding": Finding.NO_FINDING,
    "Enlarged Cardiomediastinum": Finding.ENLARGED_CARDIOMEDIASTINUM,
    "Cardiomegaly": Finding.CARDIOMEGALY,
    "Lung Opacity": Finding.LUNG_OPACITY,
    "Lung Lesion": Finding.LUNG_LESION,
    "Edema": Finding.EDEMA,
    "Consolidation": Finding.CONSOLIDATION,
    "Pneumonia": Finding.PNEUMONIA,
    "Atelectasis": Finding.ATELECTASIS,
    "Pneumothorax": Finding.PNEUMOTHORAX,
    "Pleural Effusion": Finding.EFFUSION,
    "Pleural Other": None,
    "Fracture": Finding.FRACTURE,
    "Support Devices": None,
}
_CHEXPERT_FINDINGS = tuple(f for f in _CHEXPERT_COLUMNS.values() if f not in {None, Finding.NO_FINDING})

_CHEXPERT = CsvLayout(
    name="chexpert/1",
    about="CheXpert, train.csv; a row by patient, study and view in its path; a blank is unknown, -1 follows the policy; "
    "No Finding makes the other 11 absent",
    key_kind="image",
    key_column="Path",
    key_parts=3,
    value_columns=_CHEXPERT_COLUMNS,
    values=VALUES,
    normal_scope=tuple(f for f in _CHEXPERT_FINDINGS if f is not None),
)

_MIMIC = replace(
    _CHEXPERT,
    name="mimic/1",
    about="MIMIC-CXR-JPG, mimic-cxr-2.0.0-chexpert.csv; a row by study; values as in CheXpert",
    key_kind="folder",
    key_column="study_id",
    key_parts=1,
    key_prefix="s",
)

_PADCHEST_WORDS: dict[str, Finding] = {
    "normal": Finding.NO_FINDING,
    "laminar atelectasis": Finding.ATELECTASIS,
    "lobar atelectasis": Finding.ATELECTASIS,
    "segmental atelectasis": Finding.ATELECTASIS,
    "total atelectasis": Finding.ATELECTASIS,
    "round atelectasis": Finding.ATELECTASIS,
    "atelectasis basal": Finding.ATELECTASIS,
    "pulmonary edema": Finding.EDEMA,
    "pleural effusion": Finding.EFFUSION,
    "loculated pleural effusion": Finding.EFFUSION,
    "loculated fissural effusion": Finding.EFFUSION,
    "mediastinal enlargement": Finding.ENLARGED_CARDIOMEDIASTINUM,
    "superior mediastinal enlargement": Finding.ENLARGED_CARDIOMEDIASTINUM,
    "pulmonary fibrosis": Finding.FIBROSIS,
    "fibrotic band": Finding.FIBROSIS,
    "rib fracture": Finding.FRACTURE,
    "callus rib fracture": Finding.FRACTURE,
    "clavicle fracture": Finding.FRACTURE,
    "humeral fracture": Finding.FRACTURE,
    "vertebral fracture": Finding.FRACTURE,
    "hiatal hernia": Finding.HERNIA,
    "infiltrates": Finding.INFILTRATION,
    "pulmonary mass": Finding.MASS,
    "multiple nodules": Finding.NODULE,
    "apical pleural thickening": Finding.PLEURAL_THICKENING,
    "calcified pleural thickening": Finding.PLEURAL_THICKENING,
    "atypical pneumonia": Finding.PNEUMONIA,
}
_PADCHEST_FINDINGS = tuple(
    finding for finding in Finding if finding not in {Finding.LUNG_LESION, Finding.LUNG_OPACITY, Finding.NO_FINDING}
)


def _listed(text: str) -> list[str]:
    """Return the names in a list that was written as Python writes it: "['normal', 'nodule']"."""
    try:
        names = ast.literal_eval(text) if text else []
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return [text]
    return [str(name) for name in names] if isinstance(names, list | tuple) else [text]


_PADCHEST = CsvLayout(
    name="padchest/1",
    about="PadChest, PADCHEST_chest_x_ray_images_labels_160K*.csv; a row by the image's name; findings of the report; what "
    "it does not name is absent; rows marked `exclude` or `suboptimal study` say nothing",
    key_kind="image",
    key_column="ImageID",
    words_column="Labels",
    split=_listed,
    mapping=_PADCHEST_WORDS,
    void=frozenset({"exclude", "suboptimal study"}),
    mute=frozenset({"unchanged"}),
    scope=_PADCHEST_FINDINGS,
)

_VINDR_WORDS: dict[str, Finding | None] = {
    "Aortic enlargement": None,
    "Calcification": None,
    "Clavicle fracture": Finding.FRACTURE,
    "ILD": None,
    "Nodule/Mass": Finding.LUNG_LESION,
    "Other lesion": None,
    "Pleural effusion": Finding.EFFUSION,
    "Pulmonary fibrosis": Finding.FIBROSIS,
    "Rib fracture": Finding.FRACTURE,
}
_VINDR_COLUMNS: dict[str, Finding | None] = {
    "Atelectasis": Finding.ATELECTASIS,
    "Cardiomegaly": Finding.CARDIOMEGALY,
    "Consolidation": Finding.CONSOLIDATION,
    "Infiltration": Finding.INFILTRATION,
    "Lung Opacity": Finding.LUNG_OPACITY,
    "Nodule/Mass": Finding.LUNG_LESION,
    "Pleural effusion": Finding.EFFUSION,
    "Pleural thickening": Finding.PLEURAL_THICKENING,
    "Pneumonia": Finding.PNEUMONIA,
    "Pneumothorax": Finding.PNEUMOTHORAX,
    "Pulmonary fibrosis": Finding.FIBROSIS,
    "No finding": Finding.NO_FINDING,
    "Clavicle fracture": Finding.FRACTURE,
    "Edema": Finding.EDEMA,
    "Emphysema": Finding.EMPHYSEMA,
    "Rib fracture": Finding.FRACTURE,
    "Aortic enlargement": None,
    "Calcification": None,
    "ILD": None,
    "Other lesion": None,
}
_VINDR_OPTIONAL = frozenset({"Clavicle fracture", "Edema", "Emphysema", "Rib fracture"})
_VINDR_REPORTED = (Finding.EDEMA, Finding.EMPHYSEMA, Finding.FRACTURE, Finding.PNEUMONIA)
"""Findings of the columns that no box is drawn for in the edition with 14 classes."""
_VINDR_FINDINGS = tuple(f for f in _VINDR_COLUMNS.values() if f not in {None, Finding.NO_FINDING, *_VINDR_REPORTED})

_VINDR = CsvLayout(
    name="vindr/1",
    about="VinDr-CXR, annotations (boxes with class_name); a row by the image's id; present where more than half of its "
    "readers drew a box, absent where none did, unknown between",
    key_kind="image",
    key_column="image_id",
    words_column="class_name",
    mapping=_VINDR_WORDS,
    scope=tuple(f for f in _VINDR_FINDINGS if f is not None),
    reader_column="rad_id",
    many_rows=True,
)

_VINDR_IMAGES = CsvLayout(
    name="vindr-images/1",
    about="VinDr-CXR, image_labels_*.csv (a column for each finding); a row by image and reader; readers as in `vindr`",
    key_kind="image",
    key_column="image_id",
    value_columns=_VINDR_COLUMNS,
    optional=_VINDR_OPTIONAL,
    values=VALUES,
    reader_column="rad_id",
    many_rows=True,
)

_RSNA = CsvLayout(
    name="rsna/1",
    about="RSNA Pneumonia Detection Challenge, stage_2_train_labels.csv (boxes); a row by the file's name; Target says "
    "whether there is an opacity suspicious for pneumonia",
    key_kind="image",
    key_column="patientId",
    value_columns={"Target": Finding.PNEUMONIA},
    values=VALUES,
    also={Finding.PNEUMONIA: (Finding.LUNG_OPACITY,)},
    many_rows=True,
)

_RSNA_CLASSES = CsvLayout(
    name="rsna-classes/1",
    about="RSNA Pneumonia Detection Challenge, stage_2_detailed_class_info.csv; as `rsna`, and Normal is No Finding",
    key_kind="image",
    key_column="patientId",
    words_column="class",
    mapping={
        "Normal": Finding.NO_FINDING,
        "No Lung Opacity / Not Normal": None,
        "Lung Opacity": Finding.PNEUMONIA,
    },
    also={Finding.PNEUMONIA: (Finding.LUNG_OPACITY,)},
    scope=(Finding.PNEUMONIA, Finding.LUNG_OPACITY),
    many_rows=True,
)

PRESETS = {
    "nih": _NIH,
    "chexpert": _CHEXPERT,
    "mimic": _MIMIC,
    "padchest": _PADCHEST,
    "vindr": _VINDR,
    "vindr-images": _VINDR_IMAGES,
    "rsna": _RSNA,
    "rsna-classes": _RSNA_CLASSES,
}
"""The layout of each preset of `config.PresetLabels`."""


def preset_layout(settings: PresetLabels) -> CsvLayout:
    """Return the layout of a preset with the silo's choices in it."""
    layout = replace(PRESETS[settings.preset], uncertain=settings.uncertain)
    return layout if settings.scope is None else replace(layout, scope=settings.scope, normal_scope=settings.scope)
