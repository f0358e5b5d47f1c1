"""What each finding does to the line integrals of one and the same thorax."""

from dataclasses import replace

import numpy as np
import pytest

from silo_app.cases import Finding, Sex
from silo_app.imaging.samples.attenuation import attenuation
from silo_app.imaging.samples.findings import SCOPE, SIZES, Abnormality, changed, draw
from silo_app.imaging.samples.projection import line_integrals
from silo_app.imaging.samples.rays import Geometry
from silo_app.imaging.samples.thorax import LEFT, RIGHT, Breath, Thorax, draw_anatomy

VIEW = Geometry(
    rows=96,
    columns=96,
    spacing=4.0,
    source_to_detector=1800.0,
    patient_to_detector=130.0,
    anterior=False,
    yaw=0.0,
    roll=0.0,
    shift=(0.0, 0.0),
)
ANATOMY = draw_anatomy(Sex.MALE, 50, np.random.default_rng(5))
BREATH = Breath(depth=0.9, aerated=1.0, shoulders=0.0)


def shadow(*abnormal, anatomy=ANATOMY, breath=BREATH):
    thorax = Thorax(anatomy, breath)
    return line_integrals(thorax, VIEW.rays(), abnormal, attenuation(120), np.random.default_rng(0))


def abnormality(finding, side=LEFT, size=None, **changes):
    usual = {"height": 0.5, "angle": 0.0, "reach": 0.4, "solid": 1.0, "calcium": 0.0, "seed": 3}
    size = float(np.mean(SIZES[finding])) if size is None else size
    return Abnormality(finding=finding, side=side, size=size, **{**usual, **changes})


LEFT_HALF, RIGHT_HALF = (slice(None), slice(52, None)), (slice(None), slice(None, 44))  # as displayed


@pytest.mark.parametrize("finding", [Finding.EFFUSION, Finding.CONSOLIDATION, Finding.MASS, Finding.NODULE])
@pytest.mark.parametrize(
    ("side", "changed_half", "same_half"),
    [
        (LEFT, LEFT_HALF, RIGHT_HALF),
        (RIGHT, RIGHT_HALF, LEFT_HALF),
    ],
)
def test_an_opacity_attenuates_more_on_its_side_only(finding, side, changed_half, same_half):
    difference = shadow(abnormality(finding, side)) - shadow()
    assert difference[changed_half].max() > 0.15
    assert np.abs(difference[same_half]).max() < 0.02


def test_a_pneumothorax_lets_more_through_where_the_lung_was():
    difference = shadow(abnormality(Finding.PNEUMOTHORAX, RIGHT)) - shadow()
    assert difference[RIGHT_HALF].min() < -0.3
    assert np.abs(difference[LEFT_HALF]).max() < 0.02


def test_an_effusion_is_flat_below_and_deeper_when_larger():
    small, large = (shadow(abnormality(Finding.EFFUSION, size=s)) - shadow() for s in (0.22, 0.4))
    assert (large > 0.3).sum() > 1.5 * (small > 0.3).sum()
    rows = np.flatnonzero((large[LEFT_HALF] > 0.3).any(axis=1))
    assert rows.min() > 30  # the upper lung stays clear


def cardiothoracic_ratio(image):
    """Return heart over thorax in the row where the heart is broadest, from the profile of attenuation."""
    dense = image > np.percentile(image[30:60, 20:76], 60)
    heart = max(int(row[30:76].sum()) for row in dense[45:60])
    return heart / 70


def test_cardiomegaly_broadens_the_heart():
    assert (shadow(abnormality(Finding.CARDIOMEGALY, size=1.4)) - shadow()).max() > 0.3
    assert cardiothoracic_ratio(shadow(abnormality(Finding.CARDIOMEGALY, size=1.5))) > cardiothoracic_ratio(shadow())


def test_a_calcified_nodule_is_denser():
    soft, hard = (shadow(abnormality(Finding.NODULE, calcium=c)).sum() for c in (0.0, 0.3))
    assert hard > soft


def test_less_breath_raises_the_diaphragm():
    deep, shallow = (Thorax(ANATOMY, replace(BREATH, depth=d)) for d in (1.0, 0.3))
    assert shallow.dome_top(RIGHT) > deep.dome_top(RIGHT) + 20


def test_women_have_breasts_and_men_do_not():
    random = np.random.default_rng(2)
    assert draw_anatomy(Sex.FEMALE, 40, random).breast > 20
    assert draw_anatomy(Sex.MALE, 40, random).breast == 0


@pytest.mark.parametrize("finding", SCOPE)
def test_drawn_findings_are_of_their_kind_and_size(finding):
    random = np.random.default_rng(9)
    low, high = SIZES[finding]
    for _ in range(20):
        for one in draw(finding, random):
            assert one.finding is finding
            assert low <= one.size <= high
            later = changed(one, random)
            assert low <= later.size <= high
            assert replace(later, size=one.size) == one


def test_attenuation_is_never_negative_or_undefined():
    random = np.random.default_rng(4)
    for number in range(6):
        abnormal = [one for finding in SCOPE for one in draw(finding, random)]
        anatomy = draw_anatomy(Sex.FEMALE if number % 2 else Sex.MALE, 20 + 14 * number, random)
        image = shadow(*abnormal, anatomy=anatomy, breath=replace(BREATH, depth=0.15 + 0.15 * number))
        assert np.isfinite(image).all()
        assert image.min() >= 0
        assert 2 < image.max() < 20
