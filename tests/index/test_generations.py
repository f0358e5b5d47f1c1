"""Generations: old or new, never half; damage is seen before anything is searched; readers are not disturbed."""

import contextlib
import errno
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import faiss
import numpy as np
import pytest

from silo_app import durable
from silo_app.cases import CaseId, EncoderVersion
from silo_app.errors import IndexDamaged, NotReady
from silo_app.index import faiss_gallery, generations
from silo_app.index.generations import building, in_use, open_current, pointer, publish

ENCODER = EncoderVersion("ab" * 16)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "silo" / "index"


def vectors_of(seed, count=6):
    vectors = np.random.default_rng(seed).standard_normal((count, 8))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def put(root, seed, count=6):
    rng = np.random.default_rng(seed)
    with building(root):
        return publish(
            root,
            vectors=vectors_of(seed, count),
            cases=[CaseId(rng.bytes(16).hex()) for _ in range(count)],
            digests=[rng.bytes(32).hex() for _ in range(count)],
            encoder_version=ENCODER,
        )


def stored(generation):
    return generation.gallery.vectors(np.arange(generation.info.views))


def as_stored(seed, count=6):
    return vectors_of(seed, count).astype(np.float16).astype(np.float32)


def test_what_was_published_is_opened(root):
    info = put(root, 1)
    opened = open_current(root)
    assert opened.info == info
    assert (info.generation, info.views, info.cases, info.dimension) == ("000001", 6, 6, 8)
    assert info.encoder_version == ENCODER
    assert np.array_equal(stored(opened), as_stored(1))
    assert opened.digests.shape == (6, 32)
    assert opened.skipped == ()


def test_files_are_private_and_read_only(root):
    put(root, 1)
    folder = root / "000001"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o400}
    assert stat.S_IMODE((root / "current").stat().st_mode) == 0o600


def test_the_newest_two_are_kept_and_the_pointer_moves(root):
    seen = set()
    for seed in range(4):
        put(root, seed)
        seen.add(pointer(root))
    assert sorted(path.name for path in root.iterdir() if path.is_dir()) == ["000003", "000004"]
    assert open_current(root).info.generation == "000004"
    assert len(seen) == 4


def test_a_damaged_generation_is_not_the_one_to_fall_back_on(root):
    put(root, 1)
    put(root, 2)
    damage(root / "000002" / "gallery.faiss", DAMAGE["truncated"])
    put(root, 3)
    assert sorted(path.name for path in root.iterdir() if path.is_dir()) == ["000001", "000003"]
    damage(root / "000003" / "gallery.faiss", DAMAGE["truncated"])
    assert open_current(root).info.generation == "000001"


def test_what_is_in_use_is_what_is_opened(root):
    assert in_use(root) is None
    put(root, 1)
    put(root, 2)
    assert in_use(root) == "000002"
    damage(root / "000002" / "gallery.faiss", DAMAGE["truncated"])
    assert in_use(root) == "000001"
    damage(root / "000001" / "cases.npy", DAMAGE["a flipped bit"])
    with pytest.raises(IndexDamaged, match="000001, 000002"):
        in_use(root)


@contextlib.contextmanager
def files_of_at_most(size):
    """A disk that is full from so many bytes of a file on."""
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


@pytest.mark.parametrize("name", ["gallery.faiss", "digests.npy"])
@pytest.mark.parametrize("short", [1, 100, 4000, 9000])
def test_a_full_disk_leaves_the_old_generation_and_nothing_else(root, name, short):
    """Down to the last bytes, of which libraries do not tell."""
    count = 300 if name == "digests.npy" else 3000
    put(root, 1, count)
    size = (root / "000001" / name).stat().st_size
    with files_of_at_most(size - short), pytest.raises(NotReady, match="could not be written") as raised:
        put(root, 2, count)
    assert "has room" in raised.value.remedy
    assert sorted(path.name for path in root.iterdir() if path.is_dir()) == ["000001"]
    opened = open_current(root)
    assert (opened.info.generation, opened.skipped, in_use(root)) == ("000001", (), "000001")
    assert put(root, 3, count).generation == "000002"


def test_a_pointer_that_cannot_be_written_leaves_the_old_generation(root, monkeypatch):
    put(root, 1)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(NotReady, match="No space left"):
        patch.setattr(durable, "write_text", full)
        put(root, 2)
    assert sorted(path.name for path in root.iterdir() if path.is_dir()) == ["000001"]


def test_a_library_that_writes_less_than_it_says_publishes_nothing(root, monkeypatch):
    put(root, 1)

    def short(index, file):
        faiss.write_index(index, str(file))
        file.write_bytes(file.read_bytes()[:-1])

    with monkeypatch.context() as patch, pytest.raises(NotReady, match="not an index of FAISS"):
        patch.setattr(faiss_gallery, "write_index", short)
        put(root, 2)
    assert sorted(path.name for path in root.iterdir() if path.is_dir()) == ["000001"]


def test_nothing_indexed_is_not_ready(root):
    with pytest.raises(NotReady, match="no index yet"):
        open_current(root)
    assert pointer(root) == (0, 0)


FILES = ("gallery.faiss", "cases.npy", "digests.npy", "manifest.json")


def _flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    return bytes(content)


DAMAGE = {
    "truncated": lambda file: file.read_bytes()[: file.stat().st_size // 2],
    "a flipped bit": _flip,
    "emptied": lambda _file: b"",
    "longer": lambda file: file.read_bytes() + b"x",
}


def damage(file, change):
    content = change(file)
    file.chmod(0o600)
    file.write_bytes(content)


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_generation_is_skipped_for_the_one_before(root, name, kind):
    put(root, 1)
    put(root, 2)
    damage(root / "000002" / name, DAMAGE[kind])
    if name == "manifest.json" and kind == "longer":
        kind = "trailing text"  # not JSON any more
    opened = open_current(root)
    assert opened.info.generation == "000001"
    assert opened.skipped == ("000002",)
    assert np.array_equal(stored(opened), as_stored(1))


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_damage(root, name):
    put(root, 1)
    put(root, 2)
    (root / "000002" / name).unlink()
    assert open_current(root).info.generation == "000001"


def test_all_generations_damaged_is_an_error_with_a_remedy(root):
    put(root, 1)
    put(root, 2)
    for name in ("000001", "000002"):
        damage(root / name / "gallery.faiss", DAMAGE["truncated"])
    with pytest.raises(IndexDamaged, match="000001, 000002") as raised:
        open_current(root)
    assert "silo index build" in raised.value.remedy


@pytest.mark.parametrize("content", [b"", b"000009\n", b"../../etc\n", b"\xff\xfe"])
def test_a_damaged_pointer_falls_back_to_the_newest(root, content):
    put(root, 1)
    put(root, 2)
    (root / "current").write_bytes(content)
    assert open_current(root).info.generation == "000002"


def test_a_generation_copied_under_another_name_is_damage(root):
    put(root, 1)
    put(root, 2)
    (root / "000002").rename(root / "000003")
    assert open_current(root).info.generation == "000001"


def test_readers_keep_what_they_opened(root):
    put(root, 1)
    opened = open_current(root)
    for seed in range(2, 5):
        put(root, seed)
    assert not (root / "000001").exists()
    assert np.array_equal(stored(opened), as_stored(1))


def test_a_second_build_at_once_is_refused(root):
    with building(root), pytest.raises(NotReady, match="another process builds"), building(root):
        pass
    put(root, 1)


def test_a_killed_build_leaves_nothing_in_the_way(root):
    put(root, 1)
    (root / ".000002.part").mkdir()
    (root / ".000002.part" / "gallery.faiss").write_bytes(b"half")
    assert open_current(root).info.generation == "000001"
    assert put(root, 2).generation == "000002"
    assert not (root / ".000002.part").exists()


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("step", range(40))
def test_killed_at_any_step_of_publishing_the_old_or_the_new_is_there(root, monkeypatch, step):
    """Every fsync, rename and write through the file system counts as a step."""
    put(root, 1)
    count = [0]

    def counted(function):
        def call(*args, **kwargs):
            if count[0] == step:
                raise Killed
            count[0] += 1
            return function(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", counted(os.fsync))
        patch.setattr(os, "fchmod", counted(os.fchmod))
        patch.setattr(Path, "rename", counted(Path.rename))
        patch.setattr(Path, "replace", counted(Path.replace))
        patch.setattr(Path, "write_text", counted(Path.write_text))
        patch.setattr(Path, "unlink", counted(Path.unlink))
        patch.setattr(np, "save", counted(np.save))
        try:
            put(root, 2)
            completed = True
        except Killed:
            completed = False
    opened = open_current(root)
    assert opened.skipped == ()
    seed = int(opened.info.generation)
    assert np.array_equal(stored(opened), as_stored(seed))
    if completed:
        assert seed == 2
    put(root, 3)
    assert np.array_equal(stored(open_current(root)), as_stored(3))


def test_killed_for_real_while_publishing_in_a_loop(root):
    """SIGKILL at a random moment; whatever is current afterwards is whole."""
    code = (
        "import sys, numpy as np; from pathlib import Path; from silo_app.cases import *;"
        "from silo_app.index.generations import building, publish\n"
        "rng = np.random.default_rng(0); print('up', flush=True)\n"
        "while True:\n"
        "    v = rng.standard_normal((200, 8)).astype('f4'); v /= np.linalg.norm(v, axis=1, keepdims=True)\n"
        "    with building(Path(sys.argv[1])):\n"
        "        publish(Path(sys.argv[1]), vectors=v, cases=[CaseId(rng.bytes(16).hex()) for _ in v],\n"
        "                digests=[rng.bytes(32).hex() for _ in v], encoder_version=EncoderVersion('ab' * 16))\n"
    )
    put(root, 1)
    for wait in (0.01, 0.05, 0.11):
        with subprocess.Popen([sys.executable, "-c", code, root], stdout=subprocess.PIPE, cwd=Path.cwd()) as child:
            child.stdout.readline()
            try:
                child.wait(wait)
            except subprocess.TimeoutExpired:
                child.kill()
        assert open_current(root).skipped == ()
    put(root, 2)
    assert np.array_equal(stored(open_current(root)), as_stored(2))


def test_durable_writes_are_used(root, monkeypatch):
    synced = []
    monkeypatch.setattr(durable, "sync_folder", lambda path: synced.append(path.name))
    put(root, 1)
    assert synced == [".000001.part", "index", "index"]


def test_the_millionth_generation_is_one_like_any_other(root):
    put(root, 3)
    (root / "current").write_text("999998\n")
    for name in ("999999", "1000000", "1000001"):
        assert put(root, 3).generation == name
        assert (open_current(root).info.generation, in_use(root)) == (name, name)
    assert sorted(path.name for path in root.glob("[0-9]*")) == ["1000000", "1000001"]


@pytest.mark.parametrize("opens", [lambda root: open_current(root).info.generation, in_use])
def test_a_generation_that_is_replaced_while_it_is_opened_is_not_called_damaged(root, monkeypatch, opens):
    put(root, 1)
    real, times = generations.read_manifest, []

    def overtaken(folder):
        info = real(folder)
        if not times:
            times.append(folder)
            put(root, 2)
            shutil.rmtree(root / "000001")  # as what was taken out of the silo is, and any after two more builds
        return info

    monkeypatch.setattr(generations, "read_manifest", overtaken)
    assert opens(root) == "000002"
    assert open_current(root).skipped == ()
