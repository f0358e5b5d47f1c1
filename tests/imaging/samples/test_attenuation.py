import pytest

from silo_app.imaging.samples.attenuation import attenuation


def test_coefficients_at_a_tabulated_energy_are_the_tables():
    beam = attenuation(100.0)  # 60 keV
    assert beam.soft == pytest.approx(0.2048 * 1.06 / 10, rel=1e-9)
    assert beam.bone == pytest.approx(0.3148 * 1.92 / 10, rel=1e-9)


def test_denser_tissue_attenuates_more():
    beam = attenuation(120.0)
    assert beam.bone > beam.soft > beam.fat > beam.lung > 0


def test_a_higher_voltage_penetrates_more_and_shows_bone_less():
    low, high = attenuation(70.0), attenuation(133.0)
    assert high.soft < low.soft
    assert high.bone / high.soft < low.bone / low.soft
