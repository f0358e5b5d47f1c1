"""Facts of an invented demo: whole, or with everything that may be missing missing."""

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from provisioning.report import facts as f
from provisioning.report.page import render

HOSPITALS = {"hospital-a": "Hospital A", "hospital-b": "Hospital B", "hospital-c": "Hospital C"}


def picture(seed: int) -> f.Picture:
    """A thorax-like blur, 96 x 96."""
    y, x = np.mgrid[-1:1:96j, -1:1:96j]
    lungs = sum(np.exp(-((((x - side * 0.42) / 0.26) ** 2 + ((y + 0.1) / 0.55) ** 2) ** 2)) for side in (-1, 1))
    noise = np.random.default_rng(seed).normal(0, 6, x.shape)
    values = np.clip(205 - 130 * lungs + 30 * np.exp(-((x / 0.1) ** 2)) + noise, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    return f.Picture(file.getvalue(), f"synthetic chest X-ray {seed}")


def silo(name: str, number: int) -> f.Silo:
    counts = [(240, 60, 0), (120, 130, 50), (30, 270, 0)][number]
    return f.Silo(
        name=name,
        display_name=HOSPITALS[name],
        patients=180 - 40 * number,
        cases=240 - 60 * number,
        views=300 - 70 * number,
        splits={"train": 240 - 60 * number, "held-out": 60 - 10 * number},
        findings=(
            f.FindingCount(finding="Effusion", present=counts[0] // 4, absent=counts[1], unknown=counts[2]),
            f.FindingCount(finding="Pneumothorax", present=counts[1] // 5, absent=counts[0], unknown=0),
            f.FindingCount(finding="Nodule", present=10 * number, absent=100, unknown=7),
            f.FindingCount(finding="Hernia", present=0, absent=0, unknown=300),
        ),
        refused={"not DICOM": 3, "For Processing": 2} if number else {},
        devices={"Synthetic Optics DX-1": 300 - 70 * number},
        positions={"PA": 200 - 60 * number, "AP": 100 - 10 * number},
        sexes={"F": 150, "M": 148, "U": 2},
        pictures=tuple(picture(10 * number + i) for i in range(4)),
    )


def learning() -> f.Learning:
    def curve(end: float) -> tuple[f.CurvePoint, ...]:
        return tuple(f.CurvePoint(n, round(0.5 + (end - 0.5) * (1 - 0.62**n), 4)) for n in range(9))

    return f.Learning(
        measure="mean of 6 findings",
        views=148,
        patients=97,
        federated=curve(0.912),
        alone={
            "hospital-a": curve(0.81),
            "hospital-b": curve(0.77),
            "hospital-c": f.Missing("training ended with an error"),
        },
        floors={"image statistics": 0.61},
    )


def traffic() -> f.Traffic:
    def share(number: int, silo_number: int) -> f.SiloRound:
        size = 15_400_000 if number == 0 else 9_900_000
        training = 9.5 + silo_number + 0.1 * number
        return f.SiloRound(
            upload_bytes=size, train_seconds=training, encrypt_seconds=0.4, open_seconds=0.2 if number else 0.0
        )

    rounds = [
        f.Round(
            number=number,
            seconds=14.5 - 0.2 * number,
            download_bytes=30_800_000 if number == 0 else 19_800_000,
            silos={name: share(number, place) for place, name in enumerate(HOSPITALS)},
        )
        for number in range(8)
    ]
    gone = {**rounds[5].silos, "hospital-c": f.SiloRound(state="gone")}
    rounds[5] = dataclasses.replace(rounds[5], silos=gone)
    return f.Traffic(encryption="bfv", plain_bytes=28_100_000, rounds=tuple(rounds))


def search(*, down: bool = False) -> f.Search:
    names = list(HOSPITALS)[: 2 if down else 3]
    hits = tuple(
        f.Hit(
            rank=n + 1,
            similarity=0.981 - 0.013 * n,
            silo=names[(n * 2) % len(names)],
            case=f"{n + 17:032x}",
            findings=[("Effusion",), ("Effusion", "Cardiomegaly"), (), None][n % 4],
            view="PA",
            sex="F",
            age_band="50-59",
            picture=picture(n) if n % 3 else f.Missing("this silo's policy releases no image"),
        )
        for n in range(10)
    )
    answered = [
        f.SiloState(silo=name, state="answered", milliseconds=14.2 + i, indexed=230, released=10)
        for i, name in enumerate(names)
    ]
    gone = [f.SiloState(silo="hospital-c", state="unreachable", milliseconds=3.0, detail="no connection")] if down else []
    return f.Search(
        title="The same query with Hospital C down" if down else "Everybody answers",
        query=f.Query(silo="hospital-a", picture=picture(99), findings=("Effusion",), note="A held-out X-ray."),
        hits=hits[:7],
        elsewhere=hits[7:],
        silos=(*answered, *gone),
        milliseconds=31.4,
        encoder_version="3fa9c1d27b5e4f60" * 2,
    )


def whole() -> f.DemoFacts:
    machine = f.Machine(
        processor="an invented processor",
        cores=2,
        memory_bytes=8_000_000_000,
        system="Linux",
        versions={"siloscope": "0.1.0", "python": "3.11.7", "nvflare": "2.9.0", "torch": "2.13.0"},
    )
    phases = {
        "Phantoms": 38.1,
        "Provision": 6.0,
        "Ingest": 21.5,
        "Train": 131.0,
        "Index": 14.0,
        "Search": 2.2,
        "Alone": 88.0,
    }
    return f.DemoFacts(
        run=f.Run(
            started="2026-11-23T14:00:00+00:00",
            command="make demo",
            machine=machine,
            data=f.DataKind.SYNTHETIC,
            source="The images are phantoms of seed 0.",
            seconds=phases,
        ),
        silos=tuple(silo(name, number) for number, name in enumerate(HOSPITALS)),
        learning=learning(),
        traffic=traffic(),
        searches=(search(), search(down=True)),
        retrieval=f.Retrieval(
            k=10,
            queries=148,
            precision=(
                f.Bar("federated search", 0.63),
                f.Bar("raw pixels", 0.31, is_floor=True),
                f.Bar("untrained encoder", 0.29, is_floor=True),
                f.Bar("chance", 0.25, is_floor=True),
            ),
            mean_average_precision=(f.Bar("encoder", 0.58), f.Bar("raw pixels", None, is_floor=True)),
            note="Invented figures.",
        ),
        encoder=f.EncoderCard(
            version="3fa9c1d27b5e4f60" * 2,
            kind="federated",
            job="7d0e6f1c-4d0a-4f7e-9a4e-000000000000",
            rounds=8,
            encryption="bfv",
            silos=("hospital-a", "hospital-b", "hospital-c"),
            architecture={"backbone": "densenet-small", "input": "64 x 64 pixels", "embedding": "256 numbers"},
            intended_use="Research. Not a medical device.",
        ),
        checks=(
            f.Check("The server's folder holds no plain weights", f.CheckOutcome.PASSED, "212 files searched"),
            f.Check("A killed hospital costs its own hits only", f.CheckOutcome.FAILED, "invented"),
            f.Check("The pooled index gives the same ranking", f.CheckOutcome.NOT_RUN),
        ),
    )


@pytest.fixture(scope="session")
def demo_facts() -> f.DemoFacts:
    return whole()


@pytest.fixture(scope="session")
def bare_facts() -> f.DemoFacts:
    def gap(what: str) -> f.Missing:
        return f.Missing(f"the {what} step was left out")

    return dataclasses.replace(
        whole(),
        run=dataclasses.replace(whole().run, seconds={}),
        silos=tuple(dataclasses.replace(each, findings=(), pictures=gap("picture")) for each in whole().silos),
        learning=gap("learning"),
        traffic=gap("training"),
        searches=gap("search"),
        retrieval=gap("evaluation"),
        encoder=gap("encoder"),
        checks=gap("check"),
    )


@pytest.fixture(scope="session")
def light_facts() -> f.DemoFacts:
    """Without what takes long to draw."""
    return dataclasses.replace(whole(), learning=f.Missing("not drawn"), traffic=f.Missing("not drawn"))


@pytest.fixture(scope="session")
def demo_page(demo_facts: f.DemoFacts) -> str:
    return render(demo_facts)
