"""Where a page is written: whole, for its owner alone, or refused with what to do."""

import errno

import pytest

from silo_app.errors import ConfigInvalid
from silo_app.pages.render import write_page


def test_a_page_is_its_owners_alone(tmp_path):
    written = write_page(tmp_path / "page.html", "<p>")
    assert (written.read_text(), written.stat().st_mode & 0o777) == ("<p>", 0o600)


@pytest.mark.parametrize("place", [".", "none/page.html", "a/b"])
def test_where_no_page_can_be_is_said(place, tmp_path):
    (tmp_path / "a").write_text("a file")
    with pytest.raises(ConfigInvalid, match="the page cannot be written") as raised:
        write_page(tmp_path / place, "<p>")
    assert raised.value.where == str(tmp_path / place)


def test_a_full_disk_is_no_bug_of_ours(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("silo_app.durable.write_text", full)
    with pytest.raises(ConfigInvalid, match="the page cannot be written: No space left on device"):
        write_page(tmp_path / "page.html", "<p>")
