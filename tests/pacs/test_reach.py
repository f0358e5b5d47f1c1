"""`silo doctor` asks every source once, with the silo's own credentials, and takes nothing."""

import pytest

from provisioning.ports import free_port
from silo_app.doctor import holdings
from silo_app.doctor.checked import Outcome
from silo_app.imaging.sources.listener import listening


@pytest.mark.parametrize("kind", ["dicomweb", "get", "move"])
def test_an_archive_that_lets_us_in_is_reached(kind, orthanc, sources, make_silo):
    home = make_silo(sources=[sources(kind, orthanc)])
    (checked,) = holdings.sources(home)
    assert checked.outcome is Outcome.OK, checked
    assert not home.spool.exists()


def test_an_archive_that_does_not_know_our_password_is_a_problem(orthanc, sources, make_silo, password):
    home = make_silo(sources=[sources("dicomweb", orthanc)])
    password.write_text("us:wrong")
    (checked,) = holdings.sources(home)
    assert checked.outcome is Outcome.PROBLEM
    assert "password_file" in checked.remedy


@pytest.mark.parametrize("kind", ["dicomweb", "get"])
def test_an_archive_that_is_away_is_a_problem_at_once(kind, orthanc, sources, make_silo):
    home = make_silo(sources=[sources(kind, orthanc, patience_s=600)])
    orthanc.kill()
    (checked,) = holdings.sources(home)
    assert checked.outcome is Outcome.PROBLEM


def test_a_listener_is_there_or_not(make_silo):
    port = free_port()
    home = make_silo(sources=[{"kind": "listen", "name": "inbox", "port": port, "peers": ["PACS"]}])
    (checked,) = holdings.sources(home)
    assert checked.outcome is Outcome.PROBLEM
    assert "silo listen" in checked.remedy
    with listening(home, home.config.sources[0]) as chosen:
        assert chosen == port
        (checked,) = holdings.sources(home)
    assert checked.outcome is Outcome.OK
