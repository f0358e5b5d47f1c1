"""A process that is settled looks through what it holds less often, and what it held before no more."""

import subprocess
import sys

SCRIPT = """
import gc
from silo_app.collector import settle
kept = [[] for _ in range(30_000)]
settle()
assert gc.get_freeze_count() >= len(kept)
before = gc.get_stats()[0]["collections"]
more = [[] for _ in range(10_000)]
assert gc.get_stats()[0]["collections"] == before
ring = []; ring.append(ring); del ring
assert gc.collect() >= 1
"""


def test_what_is_held_is_looked_through_no_more_and_what_comes_less_often():
    subprocess.run([sys.executable, "-c", SCRIPT], check=True)
