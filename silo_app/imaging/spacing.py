"""How large a pixel is: calibrated Pixel Spacing, else the detector's (PS3.3 10.7.1.3), else nothing."""

from pydicom.dataset import Dataset

from silo_app.imaging.attributes import number

__all__ = ["pixel_aspect", "pixel_width_mm"]

_KEYWORDS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
_PLAUSIBLE_MM = (0.005, 10.0)
_PLAUSIBLE_ASPECT = (0.125, 8.0)


def pixel_width_mm(ds: Dataset) -> float | None:
    """Return the distance of two columns in mm, or None if no attribute gives a plausible one."""
    spacing = _spacing(ds)
    return None if spacing is None else spacing[1]


def pixel_aspect(ds: Dataset) -> float:
    """Return height divided by width of a pixel; 1 if unknown or implausible."""
    spacing = _spacing(ds) or _pair(ds, "PixelAspectRatio") or (1.0, 1.0)
    aspect = spacing[0] / spacing[1]
    # Spacings are decimal strings; a difference in the last digit is not an anisotropic detector.
    if abs(aspect - 1) < 1e-3 or not _PLAUSIBLE_ASPECT[0] <= aspect <= _PLAUSIBLE_ASPECT[1]:
        return 1.0
    return aspect


def _spacing(ds: Dataset) -> tuple[float, float] | None:
    for keyword in _KEYWORDS:
        pair = _pair(ds, keyword)
        if pair and all(_PLAUSIBLE_MM[0] <= side <= _PLAUSIBLE_MM[1] for side in pair):
            return pair
    return None


def _pair(ds: Dataset, keyword: str) -> tuple[float, float] | None:
    """Return (row, column) of a two-valued attribute, or None if it is not two positive numbers."""
    values = number(ds, keyword, 0), number(ds, keyword, 1)
    return (values[0], values[1]) if values[0] and values[1] and min(values[0], values[1]) > 0 else None
