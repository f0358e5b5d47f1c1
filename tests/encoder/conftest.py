"""Silos with a handful of simple pictures, whose finding no brightness tells, and a network that learns it in seconds."""

import hashlib

import numpy as np
import pytest
import torch
import yaml

from silo_app import config
from silo_app.cases import Finding, PatientKey, Sex, Split
from silo_app.catalogue import Catalogue, Label, ViewKeys, ViewRecord
from silo_app.encoder.spec import EncoderSpec
from silo_app.imaging.cache import RadiographCache
from silo_app.imaging.radiograph import Radiograph


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def spec():
    return EncoderSpec(
        backbone="densenet-small", input_size=32, embedding_dim=16, findings=(Finding.PNEUMONIA, Finding.NODULE)
    )


def picture(present, rng, rows=40, columns=32):
    """Float32 (rows, columns): noise and a pair of spots somewhere, the bright one left if present, else right.

    Brightness and sharpness are alike in both kinds, and the place says nothing.
    """
    image = rng.uniform(0.3, 0.5, (rows, columns)).astype(np.float32)
    y, x = rng.integers(4, rows - 14), rng.integers(3, columns - 17)
    sign = 1 if present else -1
    image[y : y + 10, x : x + 7] += 0.3 * sign
    image[y : y + 10, x + 7 : x + 14] -= 0.3 * sign
    return image


@pytest.fixture
def fill_silo(tmp_path):
    """A function that makes a silo with `views` views of patients with two views each; every fourth is held out."""

    def fill(name="alpha", views=48, seed=0, *, labelled=True):
        kit = tmp_path / name
        (kit / "local").mkdir(parents=True)
        (kit / "local" / "silo.yaml").write_text(yaml.safe_dump({"name": name}), encoding="utf-8")
        home = config.load(kit)
        home.root.mkdir()
        rng = np.random.default_rng(seed)
        cache = RadiographCache(home.cache)
        with Catalogue.open(home.catalogue, create=True) as catalogue, catalogue.writing() as writer:
            for number in range(views):
                present = number // 2 % 2 == 0
                patient = number // 2
                digest = hashlib.sha256(f"{name}{seed}{number}".encode()).hexdigest()
                keys = ViewKeys(
                    instance=f"i{name}{number}",
                    study=f"s{name}{number}",
                    study_uid=f"u{number}",
                    accession=f"a{number}",
                    patient=PatientKey(f"p{name}{patient}"),
                    patient_id=f"id{patient}",
                )
                split = Split.HELD_OUT if patient // 2 % 4 == 3 else Split.TRAIN
                about = {"sex": (Sex.FEMALE, Sex.MALE)[patient // 8 % 2], "age": 30 + patient, "device": "Maker Model"}
                writer.add_view(ViewRecord(digest=digest, keys=keys, split=split, height=40, width=32, **about))
                if labelled:
                    writer.relabel({digest: [Label(finding=Finding.PNEUMONIA, present=present, source="test")]})
                cache.write(digest, Radiograph(picture(present, rng)))
        return home

    return fill
