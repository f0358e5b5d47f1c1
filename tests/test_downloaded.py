"""One reader for all records of downloaded jobs: found, sized, parsed, or refused with a reason."""

import json

import pytest

from silo_app.downloaded import read_downloaded
from silo_app.errors import MessageInvalid, NotReady, UpdateRefused


def read(path, *, largest=1000, reader=lambda content: content["value"]):
    return read_downloaded(path, "record.json", what="a test", largest=largest, read=reader)


@pytest.fixture
def job(tmp_path):
    file = tmp_path / "job" / "workspace" / "record.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"value": 3}))
    return tmp_path / "job"


def test_a_record_is_found_in_a_jobs_folder_and_read_by_its_name(job):
    assert read(job) == read(job / "workspace" / "record.json") == 3


def test_no_record_is_said(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(NotReady, match="there is no record of a test"):
            read(path)


@pytest.mark.parametrize("text", ["{", "[" * 100_000, b"\xff".decode("latin-1") + "{"])
def test_what_is_no_json_is_refused(job, text):
    (job / "workspace" / "record.json").write_text(text)
    with pytest.raises(MessageInvalid, match="it is no JSON"):
        read(job, largest=1 << 20)


def test_what_is_too_large_is_not_read(job):
    with pytest.raises(MessageInvalid, match="too large"):
        read(job, largest=3)


@pytest.mark.parametrize("error", [ValueError("odd"), KeyError("odd"), TypeError("odd"), AttributeError("odd")])
def test_another_form_is_refused_with_what_is_wrong(job, error):
    def reader(_content):
        raise error

    with pytest.raises(MessageInvalid, match=rf"no record of a test: {type(error).__name__}: .*odd"):
        read(job, reader=reader)


def test_a_refusal_of_the_reader_is_told_as_it_is(job):
    def reader(_content):
        raise UpdateRefused("figures over too few patients", remedy="None.")

    with pytest.raises(MessageInvalid, match="no record of a test: figures over too few patients"):
        read(job, reader=reader)
