"""Everything between a DICOM file and the network has a name, which is part of every encoder version."""

from typing import Final

from silo_app.imaging import cache

PREPROCESSING: Final = f"{cache.PREPROCESSING}+square-area-standardised/1"
"""The radiograph's part, and the network input's (`transforms.squared`, `transforms.standardised`)."""
