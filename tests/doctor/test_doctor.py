"""Each check of `silo doctor`, well and failing, and the command."""

import datetime as dt
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from silo_app.catalogue import Catalogue, SiloKey
from silo_app.config import load
from silo_app.doctor import holdings, kit, machine, server
from silo_app.doctor.checked import Outcome, guarded
from silo_app.doctor.examination import examine
from silo_app.encoder import checkpoint
from silo_app.encoder.model import build, to_vector
from silo_app.encoder.spec import EncoderSpec
from silo_app.errors import NotReady
from silo_app.imaging.cache import RadiographCache
from silo_app.imaging.ingest import ingest
from silo_app.imaging.recall import Subject, recall
from silo_app.index.build import build_generation
from silo_app.index.generations import building, publish
from silo_app.policy.canaries import write_canaries
from silo_app.search.local import FrameServer
from silo_app.search.messages import Silos
from silo_app.search.standing import GENERATION_ASKED

ROOT = Path(__file__).parents[2]


@pytest.fixture
def stocked(make_silo, make_dicom, make_picture, tmp_path):
    """A silo that has read three images."""
    home = make_silo()
    for number in range(3):
        (tmp_path / "source" / f"{number}.dcm").write_bytes(make_dicom(make_picture(24, 20, seed=number)))
    ingest(home, workers=1)
    return home


@pytest.fixture
def certified(make_silo):
    """Give a silo a kit whose certificate lives for some days."""

    def make(days):
        home = make_silo(name="north")
        startup = home.kit / "startup"
        startup.mkdir(exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "north")])
        now = dt.datetime.now(dt.UTC)
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        builder = builder.serial_number(1).not_valid_before(now - dt.timedelta(days=400))
        certificate = builder.not_valid_after(now + dt.timedelta(days=days, hours=1)).sign(key, hashes.SHA256())
        for file in ("rootCA.pem", "client.crt"):
            (startup / file).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        plain = serialization.NoEncryption()
        secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        (startup / "client.key").write_bytes(secret)
        (startup / "client.key").chmod(0o600)
        return home

    return make


def test_a_sound_silo_has_no_problem(stocked):
    found = examine(stocked)
    assert [checked for checked in found if checked.outcome is Outcome.PROBLEM] == []
    assert {checked.name for checked in found} >= {"dependencies", "decoders", "disk", "clock", "catalogue", "cache"}


def test_every_problem_and_warning_says_what_to_do(make_silo):
    found = examine(make_silo())
    assert all(checked.remedy for checked in found if checked.outcome is not Outcome.OK)
    assert any(checked.outcome is not Outcome.OK for checked in found)


@pytest.mark.parametrize(
    ("requirement", "seen"),
    [
        ("no-such-package>=1", "no-such-package is missing"),
        ("numpy<2", "is not <2"),
        ("pydicom[x]>=99,<100", "is not"),
    ],
)
def test_packages_that_lack_or_do_not_fit_are_named(requirement, seen):
    checked = machine.dependencies([requirement, "numpy>=2"])
    assert checked.outcome is Outcome.PROBLEM
    assert seen in checked.seen


def test_all_dependencies_of_the_project_are_looked_at():
    assert len(machine.required()) > 10
    assert machine.dependencies().outcome is Outcome.OK


def test_every_freely_licensed_decoder_is_here():
    checked = machine.decoders()
    assert checked.outcome is Outcome.OK
    assert "JPEG Extended" in checked.seen


def test_a_missing_decoder_is_named():
    checked = machine.decoders({"RLE Lossless": True, "JPEG 2000 Image Compression": False})
    assert checked.outcome is Outcome.PROBLEM
    assert "JPEG 2000" in checked.seen


@pytest.mark.parametrize(
    ("free", "outcome"), [(1 << 30, Outcome.PROBLEM), (10 << 30, Outcome.WARNING), (100 << 30, Outcome.OK)]
)
def test_disk_is_full_scarce_or_fine(tmp_path, free, outcome):
    assert machine.disk(tmp_path / "not" / "yet", free=free).outcome is outcome


def test_graphics_processor(tmp_path):
    driver = tmp_path / "version"
    assert machine.gpu(driver).outcome is Outcome.OK
    driver.write_text("driver")
    assert machine.gpu(driver, usable=()).outcome is Outcome.WARNING
    assert machine.gpu(driver, usable=("Big One",)).seen == "Big One"


@pytest.mark.parametrize(("days", "outcome"), [(300, Outcome.OK), (10, Outcome.WARNING), (-1, Outcome.PROBLEM)])
def test_certificate_lives_ends_soon_or_is_over(certified, days, outcome):
    home = certified(days)
    assert guarded("certificates", lambda: kit.certificates(home)).outcome is outcome


def test_a_kit_of_another_silo_is_a_problem(certified):
    home = certified(100)
    file = home.kit / "local" / "silo.yaml"
    file.write_text(file.read_text().replace("name: north", "name: south"))
    checked = guarded("certificates", lambda: kit.certificates(load(home.kit)))
    assert checked.outcome is Outcome.PROBLEM
    assert "the name is 'south', and the certificate of this kit is of 'north'" in checked.seen


def test_missing_certificate_is_a_problem(certified):
    home = certified(300)
    (home.kit / "startup" / "client.crt").unlink()
    checked = guarded("certificates", lambda: kit.certificates(home))
    assert checked.outcome is Outcome.PROBLEM
    assert "client.crt" in checked.seen


@pytest.mark.parametrize(
    ("ahead_s", "outcome"),
    [
        (0, Outcome.OK),
        (20, Outcome.OK),
        (40, Outcome.WARNING),
        (-40, Outcome.WARNING),
        (200, Outcome.PROBLEM),
        (-200, Outcome.PROBLEM),
    ],
)
def test_the_servers_clock_is_compared_with_ours(stocked, ahead_s, outcome):
    moments = iter([1000.0, 1000.4])
    told = Silos(silos=("north",), at_ms=int((1000.2 + ahead_s) * 1000))
    assert server.clock(stocked, ask=lambda: told, now=lambda: next(moments)).outcome is outcome


def test_a_clock_that_nobody_told_is_not_called_right(certified):
    found = server.clock(certified(30))
    assert (found.outcome, found.seen.split(":")[0]) == (Outcome.WARNING, "not compared")


def test_clock_that_lags_behind_the_silos_own_files(stocked):
    assert kit.clock(stocked).outcome is Outcome.OK
    past = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
    assert kit.clock(stocked, now=past).outcome is Outcome.PROBLEM
    assert kit.clock(stocked, now=dt.datetime(1970, 1, 1, tzinfo=dt.UTC)).outcome is Outcome.PROBLEM


@pytest.mark.parametrize("name", ["catalogue.db", "silo.key", "cache"])
def test_open_files_of_the_silo_are_a_problem(stocked, name):
    path = stocked.root / name
    path.chmod(path.stat().st_mode | 0o044)
    checked = kit.private_files(stocked)
    assert checked.outcome is Outcome.PROBLEM
    assert name in checked.seen


def test_open_private_key_of_the_kit_is_a_problem(certified):
    home = certified(300)
    (home.kit / "startup" / "client.key").chmod(0o644)
    assert "client.key" in kit.private_files(home).seen


def test_open_secret_named_in_the_configuration_is_a_problem(make_silo):
    home = make_silo(index={"milvus": {"uri": "https://milvus:19530", "token_file": "token"}})
    (home.kit / "token").write_text("x")
    (home.kit / "token").chmod(0o640)
    assert "token" in kit.private_files(home).seen


@pytest.fixture
def policed(make_silo):
    """Give a silo the site policy that provisioning makes, changed."""
    sys.path.insert(0, str(ROOT))
    from provisioning import site_policy

    def make(resources=None, rights=None):
        home = make_silo()
        (home.kit / "startup").mkdir(exist_ok=True)
        (home.kit / "startup" / "fed_client.json").write_text("{}")
        made = site_policy.site_resources({"components": []}, gateway=True) | (resources or {})
        (home.kit / "local" / "resources.json").write_text(json.dumps(made))
        permissions = site_policy.authorization({"permissions": {"lead": {"view": "any"}, "project_admin": "any"}})
        permissions["permissions"] |= rights or {}
        (home.kit / "local" / "authorization.json").write_text(json.dumps(permissions))
        return home

    yield make
    sys.path.remove(str(ROOT))


def test_site_policy_as_provisioned_is_fine(policed):
    assert kit.site_policy(policed()).outcome is Outcome.OK


@pytest.mark.parametrize(
    ("resources", "rights", "seen"),
    [
        ({"class_allow_list": ["silo_app.flare.", "os."]}, None, "other classes"),
        ({"class_list_enforcement_mode": "warn"}, None, "other classes"),
        ({"allow_log_streaming": True}, None, "log"),
        (None, {"lead": {"byoc": "any", "shell_commands": "none"}}, "lead may"),
        (None, {"lead": "any"}, "lead may"),
    ],
)
def test_loosened_site_policy_is_a_problem(policed, resources, rights, seen):
    checked = kit.site_policy(policed(resources, rights))
    assert checked.outcome is Outcome.PROBLEM
    assert seen in checked.seen


def test_lost_site_policy_is_a_problem(policed):
    home = policed()
    (home.kit / "local" / "resources.json").unlink()
    assert kit.site_policy(home).outcome is Outcome.PROBLEM


def test_catalogue_that_is_damaged_inside_is_a_problem(stocked):
    content = bytearray(stocked.catalogue.read_bytes())
    for at in range(4096, len(content), 4096):
        content[at : at + 64] = b"\xff" * 64
    stocked.catalogue.write_bytes(bytes(content))
    checked = guarded("catalogue", lambda: holdings.catalogue(stocked))
    assert checked.outcome is Outcome.PROBLEM
    assert checked.remedy


def test_a_catalogue_without_its_key_is_a_problem(stocked):
    kept = stocked.key.read_bytes()
    stocked.key.unlink()
    lost = guarded("catalogue", lambda: holdings.catalogue(stocked))
    assert (lost.outcome, "silo.key from a backup" in lost.remedy) == (Outcome.PROBLEM, True)
    SiloKey.load_or_create(stocked.key)
    other = guarded("catalogue", lambda: holdings.catalogue(stocked))
    assert (other.outcome, "another key" in other.seen) == (Outcome.PROBLEM, True)
    stocked.key.write_bytes(kept)
    assert guarded("catalogue", lambda: holdings.catalogue(stocked)).outcome is Outcome.OK


def test_a_planted_case_that_the_catalogue_does_not_have_is_a_problem(stocked):
    assert holdings.planted(stocked).seen == "none"
    with Catalogue.open(stocked.catalogue) as catalogue:
        cases = [view.case for view in catalogue.views()]
    write_canaries(stocked.canaries, cases[:2])
    assert holdings.planted(stocked).outcome is Outcome.OK
    stocked.catalogue.rename(stocked.catalogue.with_name("damaged.db"))
    ingest(stocked, workers=1)
    found = holdings.planted(stocked)
    assert (found.outcome, "of 2 2 are not in the catalogue" in found.seen) == (Outcome.PROBLEM, True)
    assert "silo audit plant" in found.remedy


def test_who_makes_the_catalogue_anew_is_told_that_what_was_taken_out_comes_back(stocked):
    with Catalogue.open(stocked.catalogue) as catalogue:
        case = next(view.case for view in catalogue.views())
    assert recall(stocked, Subject(case=case), user="dr.x", reason="objection").views == 1
    stocked.catalogue.rename(stocked.catalogue.with_name("damaged.db"))
    assert ingest(stocked, workers=1).views == 3
    assert "case-recalled" in stocked.audit.read_text()
    stocked.catalogue.write_bytes(b"x" * 8192)
    checked = guarded("catalogue", lambda: holdings.catalogue(stocked))
    assert (checked.outcome, "`case-recalled` in the audit log" in checked.remedy) == (Outcome.PROBLEM, True)


def test_radiographs_that_are_missing_or_damaged_are_counted_and_left(stocked):
    one, two, _ = RadiographCache(stocked.cache).digests()
    RadiographCache(stocked.cache).discard(one)
    path = RadiographCache(stocked.cache).path(two)
    path.write_bytes(path.read_bytes()[:-10])
    checked = holdings.cache(stocked)
    assert checked.outcome is Outcome.PROBLEM
    assert "1 are missing, 1 of a sample damaged" in checked.seen
    assert f"delete {stocked.cache} and run" in checked.remedy
    assert path.exists()
    shutil.rmtree(stocked.cache)
    assert holdings.cache(stocked).remedy == "Run `silo ingest`: it decodes again what is not in the cache."
    ingest(stocked, workers=1)
    assert holdings.cache(stocked).outcome is Outcome.OK


def an_encoder(home, seed=1):
    """Keep an encoder as a training does, and make it current."""
    spec = EncoderSpec(backbone="densenet-small", input_size=32)
    version = checkpoint.save(home.models, spec, to_vector(build(spec, seed)), {})
    checkpoint.set_current(home.models, version)
    return version


def an_index(home, version):
    def embed(digests):
        return np.random.default_rng(len(digests)).normal(size=(len(digests), 8)).astype(np.float32)

    return build_generation(home, version, embed)


def index_of(home):
    return guarded("index", lambda: holdings.index(home))


def test_index_is_missing_of_the_current_encoder_or_of_the_one_before(stocked):
    assert index_of(stocked).outcome is Outcome.OK  # nothing to index with yet
    version = an_encoder(stocked)
    found = index_of(stocked)  # as after every silo's first training: nothing is broken
    assert (found.outcome, "silo index build" in found.remedy) == (Outcome.WARNING, True)
    an_index(stocked, version)
    assert index_of(stocked).outcome is Outcome.OK
    an_encoder(stocked, seed=2)
    found = index_of(stocked)
    assert (found.outcome, version[:12] in found.seen) == (Outcome.WARNING, True)
    assert "silo index build" in found.remedy


def test_images_that_came_after_the_index_are_counted(stocked, make_dicom, make_picture, tmp_path):
    an_index(stocked, an_encoder(stocked))
    (tmp_path / "source" / "later.dcm").write_bytes(make_dicom(make_picture(24, 20, seed=9)))
    ingest(stocked, workers=1)
    found = index_of(stocked)
    assert (found.outcome, "1 usable images are not in it" in found.seen) == (Outcome.WARNING, True)


def test_images_that_a_new_catalogue_has_under_other_cases_are_counted(stocked):
    an_index(stocked, an_encoder(stocked))
    stocked.catalogue.rename(stocked.catalogue.with_name("damaged.db"))
    report = ingest(stocked, workers=1)
    found = index_of(stocked)
    assert (found.outcome, f"{report.views} usable images are not in it" in found.seen) == (Outcome.WARNING, True)


@pytest.mark.parametrize("spared", [0, 1])
def test_a_damaged_index_is_a_problem_also_where_the_one_before_answers(stocked, spared):
    version = an_encoder(stocked)
    for _ in range(2):
        an_index(stocked, version)
    for folder in sorted(stocked.index.glob("0*"))[spared:]:
        (folder / "gallery.faiss").chmod(0o600)
        (folder / "gallery.faiss").write_bytes(b"damaged")
    found = index_of(stocked)
    assert found.outcome is Outcome.PROBLEM
    assert "000002" in found.seen
    assert "silo index build" in found.remedy


def test_an_index_process_that_does_not_run_is_a_problem_once_there_is_an_index(certified, stocked):
    assert holdings.index_process(stocked).outcome is Outcome.OK  # of no federation
    home = certified(300)
    assert holdings.index_process(home).outcome is Outcome.WARNING
    home.root.mkdir(exist_ok=True)
    with building(home.index):
        publish(home.index, vectors=np.eye(2, dtype=np.float32), cases=["0" * 32, "1" * 32], digests=["0" * 64, "1" * 64],
                encoder_version="ab" * 16)  # fmt: skip
    found = holdings.index_process(home)
    assert (found.outcome, "silo serve" in found.remedy) == (Outcome.PROBLEM, True)


@pytest.mark.parametrize(("generation", "outcome"), [(b"000001", Outcome.OK), (b"", Outcome.WARNING)])
def test_an_index_process_says_what_it_answers_from(certified, generation, outcome):
    home = certified(300)
    server = FrameServer(home.index_socket, lambda frame: generation if frame == GENERATION_ASKED else b"?")
    server.start()
    try:
        found = holdings.index_process(home)
    finally:
        server.close()
    assert (found.outcome, generation.decode() in found.seen) == (outcome, True)


def test_sources_that_are_gone_or_empty_are_problems(make_silo, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    home = make_silo(sources=[{"path": str(tmp_path / "gone")}, {"path": str(empty)}])
    assert [checked.outcome for checked in holdings.sources(home)] == [Outcome.PROBLEM] * 2


@pytest.mark.parametrize(("mode", "below"), [(0o000, ""), (0o444, ""), (0o111, ""), (0o000, "images")])
def test_a_source_that_is_closed_to_us_is_a_problem_that_says_which_rights(mode, below, make_silo, as_nobody, shared_folder):
    closed = shared_folder / "closed"
    (closed / "images").mkdir(parents=True)
    home = make_silo(sources=[{"path": str(closed / below)}])
    closed.chmod(mode)
    with as_nobody():
        (checked,) = holdings.sources(home)
    assert checked.outcome is Outcome.PROBLEM
    assert checked.seen == f"{closed / below}: the folder cannot be read (Permission denied)"
    assert "list and enter" in checked.remedy


def test_archive_that_does_not_answer_is_a_problem_and_others_are_still_asked(make_silo):
    home = make_silo()

    def silent(_home, _source):
        raise NotReady("the archive does not answer", remedy="Start it.")

    (checked,) = holdings.sources(home, silent)
    assert (checked.outcome, checked.remedy) == (Outcome.PROBLEM, "Start it.")


def doctor(home, *options):
    return subprocess.run(
        [sys.executable, "-m", "silo_app.cli.main", "doctor", "--silo", home.kit, *options],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def test_the_command_exits_with_1_for_a_problem_and_tells_programs(stocked):
    done = doctor(stocked, "--format", "json")
    data = json.loads(done.stdout)["data"]
    assert (done.returncode, data["problems"]) == (0, 0)
    shutil.rmtree(stocked.cache)
    done = doctor(stocked)
    assert done.returncode == 1
    assert "silo ingest" in done.stdout
