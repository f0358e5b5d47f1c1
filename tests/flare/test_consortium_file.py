"""Who is in the federation comes from the server's own configuration, and from nowhere else."""

import json

import pytest

from silo_app.errors import ConfigInvalid, NotReady
from silo_app.flare.consortium_file import read_members


def kit(tmp_path, content):
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "consortium.json").write_text(content)
    return tmp_path


def test_silos_are_in_name_order(tmp_path):
    members = read_members(kit(tmp_path, json.dumps({"silos": ["b", "a"], "anchor": "x"})))
    assert members.silos == ("a", "b")
    assert members.anchor == "x"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"silos": 5, "anchor": "x"}', '{"silos": ["a"]}'])
def test_another_content_is_named(tmp_path, content):
    with pytest.raises(ConfigInvalid, match="expected"):
        read_members(kit(tmp_path, content))


def test_a_server_that_was_not_provisioned_by_us(tmp_path):
    with pytest.raises(NotReady, match=r"consortium\.json"):
        read_members(tmp_path)
