"""Hospitals in memory: nobody is in two of them, and who judges an encoder was not in its training."""

import numpy as np
import pytest

from benchmarks import image_hospitals
from silo_app.cases import Finding
from silo_app.encoder.spec import EncoderSpec
from tests.imaging.samples.conftest import pack, pediatric

SPEC = EncoderSpec(findings=(Finding.PNEUMONIA,), backbone="densenet-small", input_size=32)


@pytest.fixture
def data(tmp_path):
    return [pack(tmp_path / f"{name}.zip", pediatric(patients)) for name, patients in (("first", 60), ("second", 10))]


def test_the_first_set_is_halved_and_the_second_is_a_hospital_of_its_own(data):
    hospitals = image_hospitals.unlike_hospitals(data, SPEC, seed=1, limit=20)
    patients = [set(one.images.patients) for one in hospitals]
    assert [len(one.images) for one in hospitals] == [20, 20, 20]
    assert [{name[0] for name in names} for names in patients] == [{"0"}, {"0"}, {"1"}]
    assert not patients[0] & patients[1]
    for one in hospitals:
        held_out = one.images.held_out
        assert 0 < held_out.sum() < len(one.images)
        assert not set(one.images.patients[held_out]) & set(one.images.patients[~held_out])


def test_others_are_patients_whom_no_hospital_has(data):
    hospitals = image_hospitals.unlike_hospitals(data, SPEC, seed=1, limit=10)
    others = image_hospitals.others_beside(data, SPEC, hospitals, seed=1, most=30)
    assert [one.silo for one in others] == ["hospital-0", "hospital-1", "hospital-2"]
    assert [len(one.images) for one in others] == [30, 30, 10]
    taken = {name for one in hospitals for name in one.images.patients}
    patients = [set(one.images.patients) for one in others]
    assert [{name[0] for name in names} for names in patients] == [{"0"}, {"0"}, {"1"}]
    assert not set.union(*patients) & taken
    assert not patients[0] & patients[1]
    for one in others:
        assert one.images.held_out.all()
        assert one.images.known.all()
        assert len(np.unique(one.images.targets)) == 2


def test_there_are_no_others_where_the_hospitals_have_all(data):
    hospitals = image_hospitals.unlike_hospitals(data, SPEC, seed=1, limit=60)
    assert image_hospitals.others_beside(data, SPEC, hospitals, seed=1, most=12) == []
