import csv
from collections import Counter

import numpy as np
import pydicom
import pytest

from silo_app.cases import Finding
from silo_app.errors import LabelsInvalid, SampleInvalid
from silo_app.imaging.samples.image_set import ImageSet
from silo_app.imaging.samples.images import import_images
from silo_app.imaging.samples.leftovers import read_skipped, read_unmapped


def labels(archive):
    with (archive.path / archive.labels.path).open(encoding="utf-8", newline="") as lines:
        return {row["study_instance_uid"]: row["findings"] for row in csv.DictReader(lines)}


def headers(archive):
    return [pydicom.dcmread(file) for file in sorted(archive.dicom.rglob("*.dcm"))]


def test_every_image_goes_to_one_hospital_with_its_label(tmp_path, pediatric_zip):
    archives = import_images([ImageSet(path=pediatric_zip)], tmp_path / "out", hospitals=3, alpha=0.5)
    patients = [{ds.PatientID for ds in headers(one)} for one in archives]
    assert sum(one.images for one in archives) == 48
    assert [one.patients for one in archives] == [len(names) for names in patients]
    assert len(set.union(*patients)) == sum(len(names) for names in patients) == 24  # nobody is divided
    for one in archives:
        named = labels(one)
        for ds in headers(one):
            healthy = int(ds.PatientID.removeprefix("p")) % 3 == 0
            assert named[ds.StudyInstanceUID] == ("No Finding" if healthy else "Pneumonia")
        assert one.labels.scope == (Finding.PNEUMONIA,)
        assert not one.synthetic


def test_pixels_come_through(tmp_path, make):
    path = make.pack(tmp_path / "s.zip", make.pediatric(1, 1))
    (archive,) = import_images([ImageSet(path=path)], tmp_path / "out", hospitals=1)
    values = np.random.default_rng((0, 0)).integers(0, 256, (20, 24)).astype(np.uint8)
    np.testing.assert_array_equal(headers(archive)[0].pixel_array, values)


def test_processes_and_containers_make_no_difference(tmp_path, make):
    folder = make.spread_out(tmp_path / "children", make.pediatric(40))
    packed = make.pack(tmp_path / "children.zip", make.pediatric(40))
    import_images([ImageSet(path=folder)], tmp_path / "a")
    import_images([ImageSet(path=packed)], tmp_path / "b", workers=2)
    files = [
        {str(file.relative_to(out)): file.read_bytes() for file in out.rglob("*.dcm")}
        for out in (tmp_path / "a", tmp_path / "b")
    ]
    assert files[0] == files[1]
    assert len(files[0]) == 80


def test_broken_images_are_listed_and_do_not_stop_the_import(tmp_path, make):
    files = make.pediatric(12)
    files["images/P003-0.png"] = b"broken"
    files["images/P004-1.png"] = make.picture(0, "RGB")
    del files["images/P005-0.png"]
    path = make.pack(tmp_path / "s.zip", files)
    archives = import_images([ImageSet(path=path)], tmp_path / "out", hospitals=2)
    assert sum(one.images for one in archives) == 21
    assert sum(len(labels(one)) for one in archives) == 21
    assert [(one.file, one.reason) for one in read_skipped(tmp_path / "out")] == [
        ("P005-0.png", "no such image in the set"),
        ("images/P003-0.png", "not a PNG or JPEG"),
        ("images/P004-1.png", "in color"),
    ]


def test_a_zip_damaged_in_one_place_gives_the_rest(tmp_path, make):
    path = make.pack(tmp_path / "s.zip", make.pediatric(6))
    data = bytearray(path.read_bytes())
    at = data.index(b"images/P002-1.png") + 60
    data[at : at + 20] = bytes(20)
    path.write_bytes(bytes(data))
    archives = import_images([ImageSet(path=path)], tmp_path / "out", hospitals=1)
    assert archives[0].images == 11
    assert [one.file for one in read_skipped(tmp_path / "out")] == ["images/P002-1.png"]


def test_separate_sets_are_hospitals_of_their_own(tmp_path, make):
    adults = make.table(
        [
            ["file", "patient_id", "finding_labels", "age", "sex", "view_position", "follow_up"],
            *[[f"{n}.png", str(n), "Mass|Edema" if n % 2 else "No Finding", "50", "M", "PA", "0"] for n in range(8)],
        ]
    )
    images = {f"{n}.png": make.picture(n) for n in range(8)}
    sets = [
        ImageSet(path=make.pack(tmp_path / "children.zip", make.pediatric(10))),
        ImageSet(path=make.pack(tmp_path / "adults.zip", {**images, "labels.csv": adults})),
    ]
    archives = import_images(sets, tmp_path / "out", hospitals=(2, 1), separate=True)
    assert [one.images for one in archives[2:]] == [8]
    assert archives[0].images + archives[1].images == 20
    assert [len(one.labels.scope) for one in archives] == [1, 1, 14]
    assert {ds.PatientAge for ds in headers(archives[2])} == {"050Y"}
    mixed = import_images(sets, tmp_path / "mixed", hospitals=2)
    assert {one.labels.scope for one in mixed} == {(Finding.PNEUMONIA,)}  # what both sets speak of


def test_a_limit_keeps_patients_whole(tmp_path, pediatric_zip):
    archives = import_images([ImageSet(path=pediatric_zip)], tmp_path / "out", hospitals=2, limit=20)
    images = Counter(ds.PatientID for one in archives for ds in headers(one))
    assert sum(images.values()) == 20
    assert set(images.values()) == {2}


def test_names_outside_the_vocabulary_are_reported_and_leave_no_label(tmp_path, make):
    rows = [["file", "patient_id", "findings"], ["0.png", "a", "cough"], ["1.png", "b", "Mass"]]
    path = make.pack(tmp_path / "s.zip", {"0.png": make.picture(0), "1.png": make.picture(1), "l.csv": make.table(rows)})
    (archive,) = import_images([ImageSet(path=path)], tmp_path / "out", hospitals=1)
    assert archive.images == 2
    assert list(labels(archive).values()) == ["Mass"]
    assert read_unmapped(tmp_path / "out") == {"cough": 1}


def test_the_same_again_changes_nothing_and_anything_else_is_refused(tmp_path, pediatric_zip):
    sets = [ImageSet(path=pediatric_zip, columns={"scope": (Finding.PNEUMONIA,)})]
    first = import_images(sets, tmp_path / "out")
    assert import_images(sets, tmp_path / "out") == first
    with pytest.raises(SampleInvalid, match="something else here already"):
        import_images(sets, tmp_path / "out", alpha=0.5)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"hospitals": 0}, "given no hospital"),
        ({"hospitals": (2, 1)}, "2 numbers of hospitals were given for 1 sets"),
        ({"hospitals": 25}, "24 patients cannot be divided among 25 hospitals"),
        ({"alpha": 0.0}, "alpha is 0.0"),
        ({"alpha": float("nan")}, "alpha is nan"),
    ],
)
def test_impossible_orders_are_refused_before_anything_is_written(tmp_path, pediatric_zip, options, problem):
    with pytest.raises(SampleInvalid, match=problem):
        import_images([ImageSet(path=pediatric_zip)], tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".*"))


def test_a_set_without_one_good_image_leaves_nothing(tmp_path, make):
    files = make.pediatric(3)
    files = {name: b"broken" if name.endswith("png") else content for name, content in files.items()}
    with pytest.raises(SampleInvalid, match="no image is left for Hospital A: not a PNG or JPEG"):
        import_images([ImageSet(path=make.pack(tmp_path / "s.zip", files))], tmp_path / "out", hospitals=1)
    assert [file.name for file in tmp_path.iterdir()] == ["s.zip"]


def test_a_csv_with_a_missing_column_is_refused(tmp_path, make):
    path = make.pack(tmp_path / "s.zip", {"a.png": make.picture(0), "labels.csv": b"file,who\na.png,1\n"})
    with pytest.raises(LabelsInvalid, match="column 'patient_id', 'findings' is missing; the columns are 'file', 'who'"):
        import_images([ImageSet(path=path)], tmp_path / "out")
