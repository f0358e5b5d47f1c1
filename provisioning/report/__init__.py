"""The page that tells what a demo did: facts in, one self-contained `report.html` out."""

from provisioning.report.facts import DemoFacts, Missing
from provisioning.report.page import write_report

__all__ = ["DemoFacts", "Missing", "write_report"]
