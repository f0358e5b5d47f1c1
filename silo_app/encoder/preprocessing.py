"""Everything between a DICOM file and the network has a name, which is part of every encoder version."""

from typing import Final

from silo_app.imaging import cache

PREPROCESSING: Final = f"{cache.PREPROCESSING}+square-area-standardised/1"
"""The radiograph's part, and the network input's (`transforms.squared`, `transforms.standardised`)."""
CONTRASTS: Final = "grey-local-rank/1"
"""What is added to them for encoders that read contrasts too (`channels.read`)."""
