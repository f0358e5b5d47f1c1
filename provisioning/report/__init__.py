"""The page that tells what a demo did: facts in, one self-contained `report.html` out."""

from provisioning.report.facts import DemoFacts, Missing
from provisioning.report.gather import Pictures, facts_of
from provisioning.report.local import machine, pictures_of, plain_update_bytes
from provisioning.report.page import write_report

__all__ = [
    "DemoFacts",
    "Missing",
    "Pictures",
    "facts_of",
    "machine",
    "pictures_of",
    "plain_update_bytes",
    "write_report",
]
