"""DICOM without the patient: the Basic Profile of PS3.15 Annex E, keyed names, and what would remain."""
