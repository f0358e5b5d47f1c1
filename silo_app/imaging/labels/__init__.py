"""Findings from what a hospital already has: label files of many kinds; local words become the shared vocabulary.

A finding that nobody looked for is unknown, not absent. "No Finding" means that whoever labelled the image found nothing of
what they looked for; beside another finding it says nothing, and that is reported.
"""

from silo_app.imaging.labels.read import LabelSettings, read_labels
from silo_app.imaging.labels.table import LabelTable
from silo_app.imaging.labels.vocabulary import Vocabulary, as_reported

__all__ = ["LabelSettings", "LabelTable", "Vocabulary", "as_reported", "read_labels"]
