"""How fast a silo takes in DICOM files, by transfer syntax, over cores, over many files, and what the cache saves.

"Bare pydicom" is `pydicom.dcmread(path).pixel_array`: the stored numbers, and nothing made of them. Ours is everything
that an ingest does with a file (`worker.decode`): read, keyed digest, checks, decode, Modality LUT, VOI, polarity, area
averages down to 512 pixels, bytes, checksum, and the file in the cache. Both are processor time of one thread, each in a
process of its own, ours as an ingest starts its workers; the same files in turn, the best of the repetitions: files of
2,500 x 2,048 pixels, 12 bits in 16. Workers keep freed memory for the next file (`pool.environment`), which bare pydicom
as people run it does not; what that is worth is a figure of its own.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pydicom
import yaml
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID

from benchmarks.harness import Figure, Target, main
from silo_app.catalogue import ContentKey
from silo_app.imaging.cache import RadiographCache
from silo_app.imaging.pool import decode_all, default_workers, environment
from silo_app.imaging.radiograph import read_radiograph
from silo_app.imaging.worker import Request

SYNTAXES = {
    "native": "1.2.840.10008.1.2.1",
    "RLE": "1.2.840.10008.1.2.5",
    "deflated": "1.2.840.10008.1.2.1.99",
    "JPEG lossless": "1.2.840.10008.1.2.4.70",
    "JPEG-LS": "1.2.840.10008.1.2.4.80",
    "JPEG 2000": "1.2.840.10008.1.2.4.90",
}
SHAPE = (2500, 2048)
CONTENTS = ContentKey(bytes(32))

TARGETS = [
    *(Target(f"{name}: ours / bare pydicom", 1.25) for name in SYNTAXES),
    Target("all cores, share of linear", 0.8, at_least=True),
    Target("memory, most / fewest files", 1.25),
    Target("cache / DICOM, all syntaxes alike", 20, at_least=True),
    Target("cache / DICOM, native only", 20, at_least=True),
]


def picture(shape: tuple[int, int], seed: int) -> NDArray[np.uint16]:
    """Return 12-bit pixels as smooth and as noisy as a radiograph's, uint16 (rows, columns)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]] / max(shape)
    smooth = 1900 + 1100 * np.sin(7 * x + seed) * np.cos(6 * y) + 300 * np.sin(40 * x * y)
    noisy: NDArray[np.float64] = np.clip(smooth + rng.normal(0, 12, shape), 0, 4095)
    return noisy.astype(np.uint16)


def dicom(pixels: NDArray[np.uint16], syntax: str, seed: int = 0) -> bytes:
    """Return a DX image in a transfer syntax as the bytes of a file."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID(SYNTAXES["native"])
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    ds.SOPInstanceUID = ds.StudyInstanceUID = ds.SeriesInstanceUID = f"2.25.{seed + 10**12}"
    ds.PatientID, ds.Modality, ds.PhotometricInterpretation = f"P{seed:012}", "DX", "MONOCHROME2"
    ds.PixelSpacing = [0.15, 0.15]
    ds.Rows, ds.Columns = pixels.shape
    ds.SamplesPerPixel, ds.PixelRepresentation = 1, 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
    ds.WindowCenter, ds.WindowWidth = 2000, 3600
    ds.PixelData = pixels.tobytes()
    ds["PixelData"].VR = "OW"
    if syntax == SYNTAXES["JPEG lossless"]:
        return _jpeg_lossless(_bytes(ds))
    if syntax == SYNTAXES["deflated"]:
        ds.file_meta.TransferSyntaxUID = UID(syntax)
    elif syntax != SYNTAXES["native"]:
        ds.compress(syntax, generate_instance_uid=False)
    return _bytes(ds)


def _bytes(ds: Dataset) -> bytes:
    file = io.BytesIO()
    pydicom.dcmwrite(file, ds, enforce_file_format=True)
    return file.getvalue()


def _jpeg_lossless(native: bytes) -> bytes:
    """Pack a file with GDCM: nothing else here writes this transfer syntax."""
    import gdcm

    with tempfile.TemporaryDirectory() as folder:
        plain, packed = Path(folder, "plain.dcm"), Path(folder, "packed.dcm")
        plain.write_bytes(native)
        reader = gdcm.ImageReader()
        reader.SetFileName(str(plain))
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
        writer = gdcm.ImageWriter()
        writer.SetFileName(str(packed))
        if not reader.Read():
            raise RuntimeError("GDCM does not read the file")
        change.SetInput(reader.GetImage())
        if not change.Change():
            raise RuntimeError("GDCM does not pack the file")
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        if not writer.Write():
            raise RuntimeError("GDCM does not write the file")
        return packed.read_bytes()


def best(work: Callable[[], object], repetitions: int) -> float:
    """Return the fewest seconds of processor time that `work` took."""
    taken = []
    for _ in range(repetitions):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return min(taken)


TIMED = """
import json, sys, time
{setup}
for line in sys.stdin:
    argument = json.loads(line)
    start = time.process_time()
    {work}
    print(time.process_time() - start, flush=True)
"""
BARE = TIMED.format(setup="import pydicom", work="pydicom.dcmread(argument['path']).pixel_array")
OURS = TIMED.format(setup="from silo_app.imaging.worker import Request, decode", work="decode(Request(**argument))")


class Timed:
    """A process that does one piece of work again and again, and says what processor time it took."""

    def __init__(self, code: str, *, as_worker: bool) -> None:
        pipe = subprocess.PIPE
        worker = environment() if as_worker else os.environ | {"OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True, env=worker)

    def seconds(self, request: Request) -> float:
        """Return the processor time of the work for one file."""
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("no pipe to the measured process")
        print(json.dumps(asdict(request)), file=self._process.stdin, flush=True)
        return float(self._process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def by_syntax(folder: Path, repetitions: int) -> Iterator[Figure]:
    """Files a second and core of each transfer syntax, and how that compares with bare pydicom."""
    cache = str(folder / "cache")
    held = RadiographCache(folder / "cache")
    for name, syntax in SYNTAXES.items():
        path = folder / f"{name}.dcm"
        path.write_bytes(dicom(picture(SHAPE, 1), syntax, 1))
        request = Request(path=str(path), cache=cache, content_key=CONTENTS.hex, seconds=60)
        slow = name == "JPEG 2000"
        count = repetitions // 4 + 2 if slow else repetitions
        bare = ours = float("inf")
        digest = CONTENTS.name(path.read_bytes())
        theirs, own = Timed(BARE, as_worker=False), Timed(OURS, as_worker=True)
        for _ in range(count):  # in turn, so that both meet the same disturbances
            held.discard(digest)  # an image that is new, as in an ingest
            bare, ours = min(bare, theirs.seconds(request)), min(ours, own.seconds(request))
        theirs.close()
        own.close()
        yield Figure(f"{name}: bare pydicom", bare * 1e3, "ms")
        yield Figure(f"{name}: ours", ours * 1e3, "ms")
        yield Figure(f"{name}: files a second and core", 1 / ours, "files")
        yield Figure(f"{name}: ours / bare pydicom", ours / bare, "x")
    content = (folder / "native.dcm").read_bytes()
    kept = Timed(BARE, as_worker=True)
    seconds = min(
        kept.seconds(Request(path=str(folder / "native.dcm"), cache="", content_key="", seconds=60))
        for _ in range(repetitions)
    )
    kept.close()
    yield Figure("native: bare pydicom, with a worker's settings of memory", seconds * 1e3, "ms")
    yield Figure("native: keyed digest alone", best(lambda: CONTENTS.name(content), repetitions) * 1e3, "ms")


def over_cores(folder: Path, files: int) -> Iterator[Figure]:
    """How near to linear the decoding pool is: JPEG-LS files, from the first reply on, in wall time."""
    cache, key = str(folder / "cache"), CONTENTS.hex
    request = Request(path=str(folder / "JPEG-LS.dcm"), cache=cache, content_key=key, seconds=60)
    cores = default_workers()
    rates = {}
    for workers in (1, cores):
        replies = decode_all([request] * (files * workers), workers=workers)
        next(replies)
        start = time.perf_counter()
        count = sum(1 for _ in replies)
        rates[workers] = count / (time.perf_counter() - start)
    yield Figure("one core, JPEG-LS", rates[1], "files a second")
    yield Figure(f"{cores} cores, JPEG-LS", rates[cores], "files a second")
    yield Figure("all cores, share of linear", rates[cores] / rates[1] / cores, "")


def over_files(folder: Path, few: int, many: int) -> Iterator[Figure]:
    """Peak memory of `silo ingest`, its workers included, with few and with many files."""
    peaks = {}
    for count in (few, many):
        kit = folder / f"kit{count}"
        source = kit / "source"
        source.mkdir(parents=True)
        base = dicom(picture((48, 40), 0), SYNTAXES["native"], 0)
        uid, patient = b"2.25.1000000000000", b"P000000000000"
        for number in range(count):
            content = base.replace(uid, b"2.25.%d" % (10**12 + number)).replace(patient, b"P%012d" % (number // 3))
            (source / f"{number:06}.dcm").write_bytes(content)
        (kit / "local").mkdir()
        (kit / "local" / "silo.yaml").write_text(yaml.safe_dump({"name": "many", "sources": [{"path": "source"}]}))
        start = time.perf_counter()
        peaks[count] = peak_of([sys.executable, "-m", "silo_app.cli.main", "ingest", "--silo", str(kit)])
        yield Figure(f"{count} small files: memory", peaks[count] / 1e6, "MB")
        yield Figure(f"{count} small files: rate", count / (time.perf_counter() - start), "files a second")
    yield Figure("memory, most / fewest files", peaks[many] / peaks[few], "x")


def peak_of(command: list[str]) -> int:
    """Run a command; return the most bytes that it and its children held at one time."""
    root = str(Path(__file__).parents[1])
    silent = subprocess.DEVNULL
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": root}, stdout=silent, stderr=silent)
    watched, peak = psutil.Process(process.pid), 0
    while process.poll() is None:
        total = 0
        for one in (watched, *children(watched)):
            try:
                total += one.memory_info().rss
            except psutil.Error:
                continue
        peak = max(peak, total)
        time.sleep(0.05)
    if process.returncode:
        raise RuntimeError(f"{command[2:5]} ended with status {process.returncode}")
    return peak


def children(process: psutil.Process) -> list[psutil.Process]:
    """Return the processes that a process has started; none when it has just ended."""
    try:
        return list(process.children(recursive=True))
    except psutil.Error:
        return []


def epochs(folder: Path, repetitions: int) -> Iterator[Figure]:
    """Compare an epoch from DICOM with one from the cache: the same images as the same arrays."""
    cache = RadiographCache(folder / "epoch")
    slow: dict[str, float] = {}
    fast: dict[str, float] = {}
    for name in SYNTAXES:
        path = folder / f"{name}.dcm"
        digest = CONTENTS.name(path.read_bytes())
        cache.write(digest, read_radiograph(path))
        slow[name] = best(partial(read_radiograph, path), max(2, repetitions // 4))
        fast[name] = best(partial(cache.read, digest), repetitions)
    yield Figure("an image from the cache", 1e3 * sum(fast.values()) / len(fast), "ms")
    yield Figure("cache / DICOM, all syntaxes alike", sum(slow.values()) / sum(fast.values()), "x faster")
    yield Figure("cache / DICOM, native only", slow["native"] / fast["native"], "x faster")


def measure(arguments: argparse.Namespace) -> list[Figure]:
    """Take all figures."""
    few, many, repetitions, files = (200, 2_000, 8, 12) if arguments.quick else (1_000, 20_000, 30, 40)
    with tempfile.TemporaryDirectory(prefix="siloscope-") as name:
        folder = Path(name)
        return [
            *by_syntax(folder, repetitions),
            *over_cores(folder, files),
            *over_files(folder, few, many),
            *epochs(folder, repetitions),
        ]


if __name__ == "__main__":
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    sys.exit(main("ingest", measure, TARGETS, describe=__doc__ or ""))
