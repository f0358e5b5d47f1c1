"""Phantom patients: who they are, when they were studied, and what they had each time."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from silo_app.cases import Sex
from silo_app.imaging.samples.findings import Abnormality, changed, draw
from silo_app.imaging.samples.hospitals import Hospital
from silo_app.imaging.samples.thorax import Anatomy, draw_anatomy

STUDIES_A_PATIENT = ((1, 2, 3, 4), (0.55, 0.25, 0.13, 0.07))
FIRST_DAY = dt.date(2019, 1, 7)


@dataclass(frozen=True, slots=True)
class Visit:
    """One study of a patient: its day, what the patient then had, and how many views were taken."""

    day: dt.date
    age: int
    abnormal: tuple[Abnormality, ...]
    views: int


@dataclass(frozen=True, slots=True)
class Patient:
    """One phantom patient and all visits."""

    sex: Sex
    born: dt.date
    anatomy: Anatomy
    visits: tuple[Visit, ...]


def studies_of_patients(studies: int, random: np.random.Generator) -> list[int]:
    """Return how many studies each patient has, so that all have `studies` together."""
    counts: list[int] = []
    while (left := studies - sum(counts)) > 0:
        counts.append(min(int(random.choice(STUDIES_A_PATIENT[0], p=STUDIES_A_PATIENT[1])), left))
    return counts


def draw_patient(hospital: Hospital, studies: int, random: np.random.Generator) -> Patient:
    """Return a patient of `hospital` with so many studies."""
    sex = Sex.FEMALE if random.random() < hospital.women else Sex.MALE
    age = int(np.clip(random.normal(*hospital.ages), 18, 94))
    first = FIRST_DAY + dt.timedelta(days=int(random.integers(0, 1800)))
    born = first - dt.timedelta(days=int(age * 365.25 + random.integers(1, 365)))
    anatomy = draw_anatomy(sex, age, random)
    return Patient(sex, born, anatomy, tuple(_visits(hospital, studies, first, born, random)))


def _visits(hospital: Hospital, studies: int, first: dt.date, born: dt.date, random: np.random.Generator) -> list[Visit]:
    visits: list[Visit] = []
    day = first
    for _ in range(studies):
        abnormal = _abnormal(hospital, visits[-1].abnormal if visits else None, random)
        age = int((day - born).days / 365.25)
        visits.append(Visit(day, age, abnormal, views=2 if random.random() < 0.12 else 1))
        day += dt.timedelta(days=int(random.integers(14, 400)))
    return visits


def _abnormal(
    hospital: Hospital, before: Sequence[Abnormality] | None, random: np.random.Generator
) -> tuple[Abnormality, ...]:
    """Return what a patient has: in half of the follow-ups what was there before, changed."""
    if before is not None and random.random() < 0.5:
        return tuple(changed(one, random) for one in before)
    if random.random() < hospital.healthy:
        return ()
    weights = np.array(list(hospital.mix.values()))
    count = 1 if random.random() < 0.65 else 2
    chosen = random.choice(len(weights), size=count, replace=False, p=weights / weights.sum())
    findings = list(hospital.mix)
    return tuple(one for index in sorted(chosen) for one in draw(findings[index], random))
