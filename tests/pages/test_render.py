"""Where a page is written: whole, for its owner alone, or refused with what to do."""

import errno

import pytest

from silo_app.errors import ConfigInvalid
from silo_app.pages.render import require_page, write_page


def test_a_page_is_its_owners_alone(tmp_path):
    require_page(tmp_path / "page.html")
    written = write_page(tmp_path / "page.html", "<p>")
    require_page(written)
    assert (written.read_text(), written.stat().st_mode & 0o777) == ("<p>", 0o600)


@pytest.mark.parametrize(
    ("place", "problem"), [(".", "it is a folder"), ("none/page.html", "there is no folder"), ("a/b", "there is no folder")]
)
def test_where_no_page_can_be_is_said_before_and_when_it_is_written(place, problem, tmp_path):
    (tmp_path / "a").write_text("a file")
    with pytest.raises(ConfigInvalid, match=problem) as raised:
        require_page(tmp_path / place)
    assert raised.value.where == str(tmp_path / place)
    with pytest.raises(ConfigInvalid, match="the page cannot be written"):
        write_page(tmp_path / place, "<p>")


def test_a_folder_that_this_account_may_not_write_into_is_named(shared_folder, as_nobody):
    (shared_folder / "closed").mkdir(mode=0o755)
    with as_nobody(), pytest.raises(ConfigInvalid, match="may not write into that folder"):
        require_page(shared_folder / "closed" / "page.html")


def test_a_full_disk_is_no_bug_of_ours(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("silo_app.durable.write_text", full)
    with pytest.raises(ConfigInvalid, match="the page cannot be written: No space left on device"):
        write_page(tmp_path / "page.html", "<p>")
