"""Ingest from a real archive, by every way it speaks, disturbed and undisturbed."""

import contextlib

import numpy as np
import pytest

from silo_app.catalogue import Catalogue
from silo_app.errors import ConfigInvalid, SourceEmpty, SourceUnreachable
from silo_app.imaging.cache import RadiographCache, as_cached
from silo_app.imaging.ingest import ingest
from silo_app.imaging.radiograph import read_radiograph
from silo_app.imaging.sources import open_source
from tests.pacs.conftest import certificates, tls_front

KINDS = ["dicomweb", "get", "move"]


def held(home):
    with Catalogue.open(home.catalogue) as catalogue:
        return {view.digest for view in catalogue.views()}


@pytest.fixture
def filled(orthanc, images, other_image):
    for content in (*images, other_image):
        orthanc.store(content)
    return orthanc


@pytest.mark.parametrize("kind", KINDS)
def test_every_radiograph_comes_bit_for_bit_and_only_once(kind, filled, images, sources, make_silo, pixels, tmp_path):
    home = make_silo(sources=[sources(kind, filled)])
    source = open_source(home, home.config.sources[0])
    files = source.files()
    assert len(files) == len(images)  # the CT was not asked for
    spool = tmp_path / "spool"
    spool.mkdir()
    with source.fetching(spool) as fetch:
        fetched = [fetch(file) for file in files]
    assert {pixels(path.read_bytes()) for path in fetched} == {pixels(content) for content in images}
    report = ingest(home, workers=1)
    assert (report.added, report.refused, report.unreachable) == (5, (), {})
    cache = RadiographCache(home.cache)
    originals = []
    for n, content in enumerate(images):
        (tmp_path / f"{n}.dcm").write_bytes(content)
        originals.append(as_cached(read_radiograph(tmp_path / f"{n}.dcm")))
    for digest in held(home):
        assert any(np.array_equal(cache.read(digest), original) for original in originals)
    assert not home.spool.exists()
    again = ingest(home, workers=1)
    assert (again.added, again.unchanged, again.removed) == (0, 5, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_new_and_recalled_studies(kind, orthanc, images, sources, make_silo):
    ids = [orthanc.store(content) for content in images[:4]]
    home = make_silo(sources=[sources(kind, orthanc)])
    ingest(home, workers=1)
    before = held(home)
    orthanc.store(images[4])
    orthanc.ask(f"/instances/{ids[2]}", method="DELETE")
    report = ingest(home, workers=1)
    assert (report.added, report.removed, report.views) == (1, 1, 4)
    assert len(held(home) & before) == 3
    assert set(RadiographCache(home.cache).digests()) == held(home)


@pytest.mark.parametrize("kind", KINDS)
def test_restart_in_mid_run_loses_nothing(kind, filled, sources, make_silo, monkeypatch):
    home = make_silo(sources=[sources(kind, filled)])
    source = open_source(home, home.config.sources[0])
    retrieved = 0

    def disturbed(fetch):
        def wrapper(file):
            nonlocal retrieved
            retrieved += 1
            if retrieved == 3:
                filled.kill()
                filled.start()
            return fetch(file)

        return wrapper

    @contextlib.contextmanager
    def fetching(spool):
        with source.fetching(spool) as fetch:
            yield disturbed(fetch)

    class Disturbed:
        name, files, confirm_gone = source.name, source.files, source.confirm_gone

    Disturbed.fetching = staticmethod(fetching)
    monkeypatch.setattr("silo_app.imaging.ingest.open_source", lambda *_: Disturbed)
    report = ingest(home, workers=1)
    assert (report.added, report.refused, report.unreachable) == (5, (), {})


@pytest.mark.parametrize("kind", KINDS)
def test_archive_that_stays_away_loses_nothing(kind, filled, sources, make_silo):
    home = make_silo(sources=[sources(kind, filled, patience_s=0)])
    ingest(home, workers=1)
    before = held(home)
    filled.kill()
    with pytest.raises(SourceUnreachable, match="does not answer"):
        ingest(home, workers=1)
    assert held(home) == before


def test_other_sources_are_ingested_when_one_is_away(filled, sources, make_silo, tmp_path, make_dicom):
    filled.kill()
    home = make_silo(sources=[sources("get", filled, patience_s=0), {"path": str(tmp_path / "source")}])
    (tmp_path / "source" / "1.dcm").write_bytes(make_dicom())
    report = ingest(home, workers=1)
    assert report.added == 1
    assert list(report.unreachable) == ["pacs"]


def test_wrong_password_is_told_at_once(filled, sources, make_silo, password):
    password.write_text("silo:wrong")
    home = make_silo(sources=[sources("dicomweb", filled)])
    with pytest.raises(SourceUnreachable, match=r"does not let us in \(HTTP 401\)"):
        ingest(home)


def test_password_that_others_can_read_is_not_used(filled, sources, make_silo, password):
    password.chmod(0o640)
    home = make_silo(sources=[sources("dicomweb", filled)])
    with pytest.raises(ConfigInvalid, match="chmod 600"):
        ingest(home)


@pytest.mark.parametrize("wrong", [{"ae_title": "NOBODY"}, {"our_ae_title": "STRANGER"}])
def test_wrong_title_is_told_at_once(filled, sources, make_silo, wrong):
    home = make_silo(sources=[sources("get", filled, patience_s=1) | wrong])
    with pytest.raises(SourceUnreachable):
        ingest(home)


def test_empty_archive_is_a_mistake_and_removes_nothing(orthanc, images, sources, make_silo):
    ident = orthanc.store(images[0])
    home = make_silo(sources=[sources("dicomweb", orthanc)])
    ingest(home, workers=1)
    orthanc.ask(f"/instances/{ident}", method="DELETE")
    with pytest.raises(SourceEmpty, match="shows us no image"):
        ingest(home, workers=1)
    assert len(held(home)) == 1


def test_dimse_over_tls_with_certificates_on_both_sides(run_orthanc, certified, images, sources, make_silo):
    orthanc = run_orthanc(tls=certified)
    orthanc.store(images[0])
    home = make_silo(sources=[sources("get", orthanc, tls=certified)])
    assert ingest(home, workers=1).added == 1
    home = make_silo(sources=[sources("get", orthanc, patience_s=0)])
    with pytest.raises(SourceUnreachable):
        ingest(home)


def test_dicomweb_over_https_believes_its_own_authority_only(orthanc, certified, images, sources, make_silo, tmp_path):
    orthanc.store(images[0])
    (tmp_path / "other").mkdir()
    with tls_front(certified, orthanc.http) as url:
        web = {"url": f"{url}/dicom-web", "patience_s": 0}
        trusting = sources("dicomweb", orthanc, tls={"ca_file": certified["ca_file"]}, **web)
        assert ingest(make_silo(sources=[trusting]), workers=1).added == 1
        for other in ({"tls": {"ca_file": certificates(tmp_path / "other")["ca_file"]}}, {}):
            with pytest.raises(SourceUnreachable, match=r"self-signed certificate in certificate chain|unable to get"):
                ingest(make_silo(sources=[sources("dicomweb", orthanc, **web, **other)]))
        by_name = web | {"url": web["url"].replace("127.0.0.1", "localhost")}
        with pytest.raises(SourceUnreachable, match=r"(?i)hostname mismatch"):
            ingest(make_silo(sources=[sources("dicomweb", orthanc, tls={"ca_file": certified["ca_file"]}, **by_name)]))


def test_move_over_tls_comes_back_over_tls(run_orthanc, certified, images, sources, make_silo):
    """The archive's association to us is opened with its certificate too, where it is told to."""
    orthanc = run_orthanc(tls=certified, move_tls=True)
    orthanc.store(images[0])
    home = make_silo(sources=[sources("move", orthanc, tls=certified)])
    assert ingest(home, workers=1).added == 1


def test_two_archives_may_call_us_back_at_one_port(run_orthanc, images, sources, make_silo):
    """A hospital that changes its archive has two for years, and the port of `move_port` is the same unless it says so."""
    first = run_orthanc()
    second = run_orthanc(move=first.move)
    for archive, content in zip((first, second, second, first), images, strict=False):
        archive.store(content)
    home = make_silo(
        sources=[sources("move", archive, name=name) for name, archive in {"old": first, "new": second}.items()]
    )
    report = ingest(home, workers=1)
    assert (report.added, report.refused, report.unreachable) == (4, (), {})
