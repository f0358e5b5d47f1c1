"""A few seconds of the fuzzer in every run of the tests; ten minutes are `python -m benchmarks.fuzz --seconds 600`."""

import argparse
import os
import random

from benchmarks import fuzz

SECONDS = float(os.environ.get("SILO_FUZZ_SECONDS", "5"))


def test_damaged_files_neither_end_nor_hang_a_worker(tmp_path):
    arguments = argparse.Namespace(quick=False, seconds=SECONDS, seed=3, keep=tmp_path)
    figures = {figure.name: figure.value for figure in fuzz.measure(arguments)}
    assert figures["executions"] > 0
    assert [target.figure for target in fuzz.TARGETS if not target.holds(figures[target.figure])] == []


def test_the_same_seed_gives_the_same_damages():
    sound = bytes(range(256)) * 8
    one, two = (fuzz.damaged(sound, random.Random(5)) for _ in range(2))
    assert one == two != sound
