"""Ten thousand crashes while a generation is published: the old one answers or the new one, never anything else."""

import random

import numpy as np
import pytest

from silo_app.cases import CaseId, EncoderVersion
from silo_app.errors import IndexDamaged
from silo_app.index.gallery import exact_scores, rank_cases
from silo_app.index.generations import building, open_current, publish
from tests.index import simulated_disk
from tests.index.simulated_disk import Disk, Sync

ENCODER = EncoderVersion("ab" * 16)
CRASHES = 10_000
TRUNCATIONS = 1_000
ROWS = 5


def content_of(seed):
    random_numbers = np.random.default_rng(seed)
    vectors = random_numbers.standard_normal((ROWS, 8))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    cases = [CaseId(random_numbers.bytes(16).hex()) for _ in range(ROWS)]
    return vectors, cases, [random_numbers.bytes(32).hex() for _ in range(ROWS)]


def put(root, seed):
    vectors, cases, digests = content_of(seed)
    with building(root):
        publish(root, vectors=vectors, cases=cases, digests=digests, encoder_version=ENCODER)


def require_right(generation):
    """The open generation holds what was published under its name, all of it, and answers from that."""
    vectors, cases, digests = content_of(int(generation.info.generation))
    stored = vectors.astype(np.float16).astype(np.float32)
    assert np.array_equal(generation.gallery.vectors(np.arange(ROWS)), stored)
    assert [row.tobytes().hex() for row in generation.digests] == digests
    assert generation.gallery.search(vectors[0], 3) == rank_cases(cases, exact_scores(stored, vectors[0]), 3)
    assert generation.info.encoder_version == ENCODER


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The disk before the fourth generation, and what publishing that one did to it."""
    root = tmp_path_factory.mktemp("recorded") / "index"
    for seed in (1, 2, 3):
        put(root, seed)
    before = Disk.of(root)
    with pytest.MonkeyPatch.context() as patch, simulated_disk.recording(root, patch) as events:
        put(root, 4)
    return before, events


def replayed(before, events, upto):
    disk = Disk(before.root, dict(before.content), dict(before.names))
    for event in events[:upto]:
        disk.after(event)
    return disk


def test_what_publishing_does_was_seen(published):
    _, events = published
    assert sum(isinstance(event, Sync) for event in events) >= 8
    assert len(events) >= 25


@pytest.mark.timeout(300)
def test_after_any_of_ten_thousand_crashes_the_old_or_the_new_answers(published, tmp_path):
    before, events = published
    chance, opened, named = random.Random(7), {}, {"000003": 0, "000004": 0}
    for number in range(CRASHES):
        upto = number % (len(events) + 1)
        state = replayed(before, events, upto).crashed(chance)
        if state not in opened:
            folder = simulated_disk.made(tmp_path / "crashed", state)
            generation = open_current(folder)
            require_right(generation)
            assert generation.skipped == ()
            opened[state] = generation.info.generation
            simulated_disk.removed(folder)
        named[opened[state]] += 1
    assert min(named.values()) > 500
    assert len(opened) > 300


@pytest.mark.timeout(120)
def test_what_was_published_is_never_lost_again(published, tmp_path):
    """From the last sync on, no crash brings the old generation back; and the next build mends whatever a crash left."""
    before, events = published
    chance = random.Random(8)
    last = max(number for number, event in enumerate(events) if isinstance(event, Sync))
    for number in range(60):
        upto = number * len(events) // 60
        durable = upto > last
        folder = simulated_disk.made(tmp_path / "crashed", replayed(before, events, upto).crashed(chance))
        assert not durable or open_current(folder).info.generation == "000004"
        put(folder, next_seed := int(max(path.name for path in folder.glob("0*"))) + 1)
        generation = open_current(folder)
        assert int(generation.info.generation) == next_seed
        require_right(generation)
        assert not list(folder.glob(".*.part"))
        simulated_disk.removed(folder)


@pytest.mark.timeout(120)
def test_files_truncated_at_random_are_never_searched(published, tmp_path):
    before, events = published
    disk = replayed(before, events, len(events))
    for event in events:
        if isinstance(event, simulated_disk.Data):
            disk.after(Sync(event.inode))
    disk.after(Sync(before.root))
    whole = dict(disk.crashed(random.Random(0)))
    chance, outcomes = random.Random(9), {"new": 0, "old": 0, "none": 0}
    files = sorted(name for name, content in whole.items() if content and name.startswith("0000"))
    for _ in range(TRUNCATIONS):
        state = dict(whole)
        for name in chance.sample(files, chance.choice((1, 1, 2, 4))):
            content = state[name]
            state[name] = content[: chance.randint(0, len(content))]
        folder = simulated_disk.made(tmp_path / "truncated", tuple(sorted(state.items())))
        try:
            generation = open_current(folder)
        except IndexDamaged:
            outcomes["none"] += 1
        else:
            require_right(generation)
            outcomes["old" if generation.info.generation == "000003" else "new"] += 1
        simulated_disk.removed(folder)
    assert min(outcomes.values()) > 20
