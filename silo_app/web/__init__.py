"""The pages that a clinician sees, served inside the hospital."""
