"""How often the text gate is right: text planted into pictures, markers, pictures as they are; Tesseract's time a picture.

Without `--data` the pictures are phantoms, which have no text. With a ZIP of images (JPEG or PNG), whatever real images
hold counts: many have markers, and some have words that identify.
"""

import argparse
import io
import random
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from benchmarks.harness import Figure, Target, main
from silo_app.imaging.burned_in import SIDE, read_text
from silo_app.imaging.radiograph import read_radiograph
from silo_app.imaging.samples.phantom import make_phantoms

IDENTIFYING = ("DOE JANE", "MULLER HANS", "17.03.1950", "2020-03-17", "ID 47110815", "MRN 0032718", "ST ANNA HOSPITAL")
MARKERS = ("L", "R", "AP", "PA", "SUPINE", "PORTABLE", "ERECT PA", "R LAT")
TARGETS = (
    Target("phantoms_refused", 0.02),
    Target("markers_refused", 0.05),
    Target("identifying_found", 0.9, at_least=True),
)
LETTER_SHARE = 0.025
"""Height of planted letters as a share of the picture's: 2.5 mm on 10 cm of film."""

Picture = NDArray[np.float32]


def phantoms(folder: Path, count: int) -> list[Picture]:
    """Return phantom radiographs, as the gate sees them."""
    archives = make_phantoms(folder, hospitals=1, studies=count)
    files = sorted(file for archive in archives for file in archive.dicom.rglob("*") if file.is_file())
    return [read_radiograph(file).pixels for file in files[:count]]


def pictures(archive: Path, count: int) -> list[Picture]:
    """Return a fixed random choice of a ZIP's images, float32 (H, W) in [0, 1]."""
    with zipfile.ZipFile(archive) as opened:
        names = sorted(name for name in opened.namelist() if name.lower().endswith((".png", ".jpg", ".jpeg")))
        chosen = random.Random(0).sample(names, min(count, len(names)))
        return [_picture(opened.read(name)) for name in chosen]


def _picture(content: bytes) -> Picture:
    image = Image.open(io.BytesIO(content)).convert("L")
    image.thumbnail((SIDE, SIDE))
    return np.asarray(image, np.float32) / np.float32(255)


def planted(picture: Picture, text: str, *, bright: bool) -> Picture:
    """Return the picture, at least 1000 pixels high, with bright `text` in a corner or dark text on tissue."""
    scale = max(1.0, 1000 / picture.shape[0])
    size = (round(picture.shape[1] * scale), round(picture.shape[0] * scale))
    image = Image.fromarray(np.rint(picture * 255).astype(np.uint8)).resize(size)
    font = ImageFont.load_default(size[1] * LETTER_SHARE / 0.7)
    place = (size[0] // 20, size[1] // 30) if bright else (size[0] // 3, size[1] // 2)
    ImageDraw.Draw(image).text(place, text, fill=255 if bright else 0, font=font)
    return np.asarray(image, np.float32) / np.float32(255)


def share(found: list[bool]) -> float:
    """Return the share that is true."""
    return sum(found) / max(1, len(found))


def measure(arguments: argparse.Namespace) -> list[Figure]:
    """Read everything."""
    count = 8 if arguments.quick else 40
    with tempfile.TemporaryDirectory() as folder:
        plain = phantoms(Path(folder) / "phantoms", count)
    start = time.perf_counter()
    refused = share([bool(read_text(picture).kinds) for picture in plain])
    seconds = (time.perf_counter() - start) / len(plain)
    ground = plain[:2]
    figures = [
        Figure("phantoms", len(plain), "pictures"),
        Figure("phantoms_refused", refused, "share"),
        Figure("seconds_a_phantom", seconds, "s, wall clock"),
        *_planted(ground, "", quick=arguments.quick),
    ]
    if arguments.data:
        real = pictures(arguments.data, count)
        kinds = [read_text(picture).kinds for picture in real]
        figures += [Figure("real", len(real), "pictures"), Figure("real_refused", share([bool(k) for k in kinds]), "share")]
        figures += _planted(real[:2], "real_", quick=arguments.quick)
    return figures


def _planted(ground: list[Picture], name: str, *, quick: bool) -> list[Figure]:
    """Plant every text into the pictures that the gate lets in as they are."""
    ground = [picture for picture in ground if not read_text(picture).kinds]
    texts = IDENTIFYING[::2] if quick else IDENTIFYING
    markers = MARKERS[::2] if quick else MARKERS
    inks = [(picture, bright) for picture in ground for bright in (True, False)]
    read = {
        text: [bool(read_text(planted(picture, text, bright=bright)).kinds) for picture, bright in inks]
        for text in (*texts, *markers)
    }
    found = [hit for text in texts for hit in read[text]]
    wrong = [hit for text in markers for hit in read[text]]
    return [
        Figure(f"{name}identifying_planted", len(found), "pictures"),
        Figure(f"{name}identifying_found", share(found), "share"),
        Figure(f"{name}markers_planted", len(wrong), "pictures"),
        Figure(f"{name}markers_refused", share(wrong), "share"),
    ]


def options(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's own."""
    parser.add_argument("--data", type=Path, metavar="ZIP", help="images to try the gate on")


if __name__ == "__main__":
    sys.exit(main("burned_in", measure, TARGETS, describe=(__doc__ or "").splitlines()[0], options=options))
