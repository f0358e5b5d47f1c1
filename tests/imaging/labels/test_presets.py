"""The layouts of published sets, each with a few rows of our own making."""

import pytest

from silo_app.errors import LabelsInvalid
from silo_app.imaging.labels.presets import PRESETS
from tests.imaging.labels.conftest import said
from tests.imaging.labels.test_csv import view

NIH = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position\n"
CHEXPERT_FINDINGS = (
    "No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia,"
    "Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices\n"
)
CHEXPERT = "Path,Sex,Age,Frontal/Lateral,AP/PA," + CHEXPERT_FINDINGS
MIMIC = "subject_id,study_id," + CHEXPERT_FINDINGS
PADCHEST = "ImageID,StudyID,PatientID,Labels,MethodLabel\n"
VINDR = "image_id,rad_id,class_name,x_min,y_min,x_max,y_max\n"
VINDR_COLUMNS = (
    "Aortic enlargement,Atelectasis,Calcification,Cardiomegaly,Consolidation,ILD,Infiltration,Lung Opacity,Nodule/Mass,"
    "Other lesion,Pleural effusion,Pleural thickening,Pneumonia,Pneumothorax,Pulmonary fibrosis,No finding"
)
RSNA = "patientId,x,y,width,height,Target\n"


def present(known):
    return {finding for finding, value in known.items() if value}


def test_nih_names_findings_and_denies_the_others_of_its_fourteen(read_preset):
    table = read_preset("nih", NIH + "1_0.png,Mass|Pleural_Thickening,0,1,50,M,PA\n2_0.png,No Finding,0,2,50,F,AP\n")
    known = said(table)
    assert present(known["1_0"]) == {"Mass", "Pleural Thickening"}
    assert present(known["2_0"]) == {"No Finding"}
    assert len(known["1_0"]) == 14
    assert "Fracture" not in known["2_0"]
    assert table.matched([view("d", "any/1_0.dcm")], str)[1] == 1


def chexpert_row(**values):
    names = CHEXPERT_FINDINGS.strip().split(",")
    return ",".join(values.get(name.replace(" ", "_"), "") for name in names)


PATH = "Set/train/patient1/study2/view1_frontal.jpg,Male,40,Frontal,AP,"


@pytest.mark.parametrize(
    ("values", "uncertain", "known"),
    [
        ({"Edema": "1.0", "Pneumonia": "0.0"}, "u-ignore", {"Edema": True, "Pneumonia": False}),
        ({"Edema": "-1.0"}, "u-ignore", {}),
        ({"Edema": "-1.0"}, "u-ones", {"Edema": True}),
        ({"Edema": "-1.0"}, "u-zeros", {"Edema": False}),
        ({"Pleural_Effusion": "1.0", "Support_Devices": "1.0"}, "u-ignore", {"Effusion": True}),
        ({}, "u-ignore", {}),
        ({"No_Finding": "1.0", "Edema": "1.0"}, "u-ignore", {"Edema": True}),
    ],
)
def test_chexpert_values_blanks_and_uncertainty(read_preset, values, uncertain, known):
    table = read_preset("chexpert", CHEXPERT + PATH + chexpert_row(**values) + "\n", uncertain=uncertain)
    assert said(table) == {"patient1/study2/view1_frontal": known}


def test_chexpert_no_finding_denies_its_eleven_findings(read_preset):
    table = read_preset("chexpert", CHEXPERT + PATH + chexpert_row(No_Finding="1.0", Support_Devices="1.0") + "\n")
    known = said(table)["patient1/study2/view1_frontal"]
    assert present(known) == {"No Finding"}
    assert len(known) == 12
    assert dict(table.outside) == {"Pleural Other": 0, "Support Devices": 1}


def test_chexpert_matches_patient_study_and_view(read_preset):
    table = read_preset("chexpert", CHEXPERT + PATH + chexpert_row(Edema="1.0") + "\n")
    views = [view("yes", "patient1/study2/view1_frontal.dcm"), view("no", "patient2/study2/view1_frontal.dcm")]
    assert set(table.matched(views, str)[0]) == {"yes"}


def test_mimic_is_joined_by_the_folder_of_the_study_or_by_its_metadata(read_preset):
    rows = MIMIC + "10,50," + chexpert_row(Edema="1.0") + "\n10,51," + chexpert_row(Edema="0.0") + "\n"
    views = [view("d1", "p10/s50/aa-bb.dcm"), view("d2", "p10/s51/cc.dcm"), view("d3", "p10/s52/dd.dcm")]
    labels, unmatched = read_preset("mimic", rows).matched(views, str)
    assert {digest: known[0].present for digest, known in labels.items()} == {"d1": True, "d2": False}
    assert unmatched == 0
    table = read_preset("mimic", rows, images="dicom_id,study_id,subject_id\naa-bb,50,10\nee,99,10\n")
    assert set(table.matched(views, str)[0]) == {"d1"}
    assert [str(issue) for issue in table.issues] == ["1 images in metadata.csv are of a study that has no labels"]


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        ("\"['laminar atelectasis', ' pleural effusion']\"", {"Atelectasis", "Effusion"}),
        ("['normal']", {"No Finding"}),
        ("\"['exclude', 'pneumonia']\"", None),
        ("['unchanged']", None),
        ("\"['unchanged', 'nodule']\"", {"Nodule"}),
        ("['goiter']", set()),
        ("", None),
    ],
)
def test_padchest_lists(read_preset, cell, shown):
    table = read_preset("padchest", PADCHEST + f"1.png,9,8,{cell},Physician\n2.png,9,8,['mass'],Physician\n")
    known = said(table)["1"]
    assert (None if not known else present(known)) == shown
    assert dict(table.unmapped) == ({"goiter": 1} if "goiter" in cell else {})


def test_a_padchest_cell_is_read_as_data_and_never_run(read_preset):
    table = read_preset("padchest", PADCHEST + "1.png,9,8,__import__('os').getcwd(),x\n")
    assert dict(table.unmapped) == {"__import__('os').getcwd()": 1}


def test_vindr_counts_readers(read_preset):
    rows = (
        "i,R1,Cardiomegaly,1,2,3,4\ni,R1,Pleural effusion,1,2,3,4\ni,R1,Pleural effusion,5,6,7,8\n"
        "i,R2,Cardiomegaly,1,2,3,4\ni,R3,No finding,,,,\nj,R1,No finding,,,,\nj,R2,No finding,,,,\nj,R3,No finding,,,,\n"
    )
    known = said(read_preset("vindr", VINDR + rows))
    assert known["i"]["Cardiomegaly"] is True
    assert "Effusion" not in known["i"]
    assert known["i"]["Atelectasis"] is False
    assert "No Finding" not in known["i"]
    assert present(known["j"]) == {"No Finding"}


def test_vindr_with_a_column_for_each_finding(read_preset):
    header = "image_id,rad_id," + VINDR_COLUMNS + "\n"
    zeros = ["0"] * 16
    one = ["1" if name == "Pneumonia" else "0" for name in VINDR_COLUMNS.split(",")]
    rows = "".join(f"i,R{n},{','.join(cells)}\n" for n, cells in enumerate([one, one, zeros]))
    known = said(read_preset("vindr-images", header + rows))["i"]
    assert present(known) == {"Pneumonia"}
    assert known["Lung Lesion"] is False


def test_vindr_without_readers_is_a_consensus(read_preset):
    table = read_preset("vindr", "image_id,class_name,x_min\ni,Cardiomegaly,1\ni,Rib fracture,1\n")
    assert present(said(table)["i"]) == {"Cardiomegaly", "Fracture"}
    header = "image_id," + VINDR_COLUMNS + ",Rib fracture,Clavicle fracture\n"
    table = read_preset("vindr-images", header + "i," + ",".join(["0"] * 16) + ",1,0\n")
    assert said(table)["i"]["Fracture"] is True
    assert "Edema" not in said(table)["i"]


def test_rsna_boxes_say_pneumonia_and_opacity(read_preset):
    table = read_preset("rsna", RSNA + "a,1,2,3,4,1\na,5,6,7,8,1\nb,,,,,0\n")
    assert said(table) == {
        "a": {"Pneumonia": True, "Lung Opacity": True},
        "b": {"Pneumonia": False, "Lung Opacity": False},
    }


def test_rsna_contradiction_is_named(read_preset):
    table = read_preset("rsna", RSNA + "a,1,2,3,4,1\na,,,,,0\n")
    assert [str(issue) for issue in table.issues] == [
        "line 3, column patientId: denies what line 2 of the same patientId says"
    ]


def test_rsna_classes_know_the_normal(read_preset):
    table = read_preset("rsna-classes", "patientId,class\na,Lung Opacity\nb,Normal\nc,No Lung Opacity / Not Normal\n")
    known = said(table)
    assert present(known["a"]) == {"Pneumonia", "Lung Opacity"}
    assert present(known["b"]) == {"No Finding"}
    assert known["c"] == {"Pneumonia": False, "Lung Opacity": False}


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_preset_refuses_a_file_of_another_set(read_preset, preset):
    with pytest.raises(LabelsInvalid, match="there is no column"):
        read_preset(preset, "something,else\n1,2\n")


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_preset_says_what_it_reads_and_has_a_version(preset):
    layout = PRESETS[preset]
    assert layout.about
    assert layout.name.partition("/")[0] == preset
    assert layout.columns


def test_a_scope_of_ones_own_replaces_the_presets(read_preset):
    table = read_preset("nih", NIH + "1.png,Mass,0,1,50,M,PA\n", scope=())
    assert said(table) == {"1": {"Mass": True}}
