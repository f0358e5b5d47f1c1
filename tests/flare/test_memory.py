"""What was freed is the system's again: measured in a process of its own, as the setting is for good."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import psutil, sys
from silo_app.flare.memory import give_back_freed
if sys.argv[1] == "set":
    assert give_back_freed()
size, rounds = 24 << 20, 6
blocks = []
for _ in range(rounds):  # freed one after the other, among others that stay: the heap cannot shrink
    for _ in range(4):
        blocks.append(bytearray(size)); blocks.append(bytearray(200_000))
    blocks = [b for b in blocks if len(b) < size]
print(psutil.Process().memory_info().rss)
"""


def resident(mode):
    return int(subprocess.run([sys.executable, "-c", PROGRAM, mode], check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_freed_blocks_are_given_back():
    assert resident("not") - resident("set") > 24 << 20
