"""Fixtures that several packages share: DICOM files made on the spot, and a silo to put them into."""

import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from silo_app.config import SiloHome, load

SHARED_CONSORTIUM = ("test_job_evaluate.py", "test_job_survey.py", "test_path.py")
CR = "1.2.840.10008.5.1.4.1.1.1"
EXPLICIT = "1.2.840.10008.1.2.1"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With `--dist loadfile`, have one process run all files that use the consortium of tests/federation/conftest.py."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class ByConsortium(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = super()._split_scope(nodeid)
            return "consortium" if file.endswith(tuple(f"federation/{name}" for name in SHARED_CONSORTIUM)) else file

    return ByConsortium(config, log)


def picture(rows: int = 64, columns: int = 48, *, bits: int = 12, seed: int = 0) -> np.ndarray:
    """A smooth picture with some texture that uses nearly the whole range, integers (rows, columns)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:rows, 0:columns]
    smooth = (np.sin(y / rows * 3 + seed) + np.cos(x / columns * 4)) / 4 + 0.5
    values = np.clip(smooth + rng.normal(0, 0.02, smooth.shape), 0, 1)
    return np.rint(values * ((1 << bits) - 1)).astype(np.uint16)


def dicom(pixels: np.ndarray | None = None, *, bits: int = 12, signed: bool = False, **attributes: Any):
    """A CR image as a pydicom dataset; keywords of DICOM override or add, None removes."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import generate_uid

    pixels = picture(bits=bits) if pixels is None else pixels
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = attributes.pop("TransferSyntaxUID", EXPLICIT)
    values = {
        "SOPClassUID": CR,
        "SOPInstanceUID": generate_uid(),
        "StudyInstanceUID": generate_uid(),
        "SeriesInstanceUID": generate_uid(),
        "PatientID": "P1",
        "PatientName": "Doe^Jane",
        "Modality": "CR",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "BitsAllocated": 8 if bits <= 8 else 16,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": int(signed),
    } | attributes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tests write what the standard forbids
        for keyword, value in values.items():
            if value is not None:
                setattr(ds, keyword, value)
    kind = ("i" if signed else "u") + ("1" if bits <= 8 else "2")
    if attributes.get("PixelData", b"") is not None and "PixelData" not in attributes:
        content = pixels.astype(f"<{kind}").tobytes()
        ds.PixelData = content + b"\0" * (len(content) % 2)
        ds["PixelData"].VR = "OW"
    ds.file_meta.MediaStorageSOPClassUID = values["SOPClassUID"] or CR
    ds.file_meta.MediaStorageSOPInstanceUID = values["SOPInstanceUID"] or "1.2.3"
    return ds


def encoded(ds) -> bytes:
    """A dataset as the bytes of a DICOM file."""
    import io

    import pydicom

    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pydicom.dcmwrite(file, ds, enforce_file_format=True)
    return file.getvalue()


@pytest.fixture
def make_picture() -> Callable[..., np.ndarray]:
    return picture


@pytest.fixture
def make_dataset() -> Callable[..., Any]:
    return dicom


@pytest.fixture
def make_dicom() -> Callable[..., bytes]:
    """A function that returns a DICOM file's bytes."""
    return lambda *args, **kwargs: encoded(dicom(*args, **kwargs))


@pytest.fixture
def encode_dicom() -> Callable[..., bytes]:
    return encoded


@pytest.fixture
def make_silo(tmp_path: Path) -> Callable[..., SiloHome]:
    """A function that makes a silo whose source is `<tmp_path>/source`, with settings of silo.yaml as keywords."""

    def make(**settings: Any) -> SiloHome:
        kit = tmp_path / "kit"
        (kit / "local").mkdir(parents=True, exist_ok=True)
        (tmp_path / "source").mkdir(exist_ok=True)
        content = {"name": "test", "sources": [{"path": str(tmp_path / "source")}]} | settings
        (kit / "local" / "silo.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
        return load(kit)

    return make


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """A folder that every account may enter (pytest's own are closed); what a test closes in it is opened at its end."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        waiting = [folder]
        while waiting:
            waiting[-1].chmod(0o700)
            waiting += [path for path in waiting.pop().iterdir() if path.is_dir() and not path.is_symlink()]


@pytest.fixture
def as_nobody() -> Callable[[], AbstractContextManager[None]]:
    """A block in which permissions count: root, whom they do not bind, is another account for as long."""

    @contextmanager
    def block() -> Iterator[None]:
        import silo_app.imaging.sources.reach  # noqa: F401  (the other account may not read our code)

        before = os.geteuid()
        if before == 0:
            os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(before)

    return block
