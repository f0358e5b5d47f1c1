"""Small sets of images, as users have them."""

import csv
import io
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image


def picture(seed, mode="L", kind="PNG", size=(24, 20)):
    """Return the bytes of a small image file with random content."""
    random = np.random.default_rng(seed)
    values = random.integers(0, 256, (size[1], size[0])).astype(np.uint8)
    if mode == "I;16":
        image = Image.fromarray(random.integers(0, 65536, (size[1], size[0])).astype(np.uint16))
    elif mode == "grey RGB":
        image = Image.fromarray(np.stack([values] * 3, axis=-1))
    elif mode == "RGB":
        image = Image.fromarray(random.integers(0, 256, (size[1], size[0], 3)).astype(np.uint8))
    else:
        image = Image.fromarray(values).convert(mode)
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def table(rows):
    """Return the bytes of a CSV; the first row is the header."""
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def pack(path, files):
    """Write a zip of {name: bytes}."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def spread_out(path, files):
    """Write a folder of {name: bytes}."""
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def pediatric(patients=24, images=2):
    """Return the files of a set with the pediatric header: a third of the patients healthy."""
    rows, files = [["file", "patient_id", "finding", "subtype"]], {}
    for patient in range(patients):
        for image in range(images):
            name = f"P{patient:03d}-{image}.png"
            files[f"images/{name}"] = picture((patient, image))
            rows.append([name, f"p{patient}", "normal" if patient % 3 == 0 else "pneumonia", ""])
    return {**files, "labels.csv": table(rows)}


@pytest.fixture(scope="session")
def make():
    """Give the functions above."""
    return SimpleNamespace(picture=picture, table=table, pack=pack, spread_out=spread_out, pediatric=pediatric)


@pytest.fixture
def pediatric_zip(tmp_path):
    return pack(tmp_path / "children.zip", pediatric())
