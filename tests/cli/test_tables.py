"""Tables for people: nothing is cut, ids fold last, and in a pipe every row is one line."""

import ast
import io
from pathlib import Path

import pytest
from rich.console import Console

from silo_app.cli.tables import WholeTable, data_screen

JOB = "7f2c1e9a-0000-4000-8000-000000000001"
CELLS = (JOB, "train", "FINISHED: COMPLETED", "2026-11-28 17:30", "0:01:20")


def jobs():
    table = WholeTable("job", "name", "status", "submitted", "duration", copied=("job",))
    table.add_row(*CELLS)
    return table


def printed(table, width):
    screen = Console(file=io.StringIO(), width=width)
    screen.print(table, markup=False)
    return screen.file.getvalue().splitlines()


def test_a_row_is_one_line_where_there_is_room():
    assert printed(jobs(), 120) == [
        "job                                   name   status               submitted         duration",
        f"{JOB}  train  FINISHED: COMPLETED  2026-11-28 17:30  0:01:20",
    ]


def test_words_wrap_before_an_id_is_folded():
    _, first, second = printed(jobs(), 80)
    assert first.split() == [JOB, "train", "FINISHED:", "2026-11-28", "0:01:20"]
    assert second.split() == ["COMPLETED", "17:30"]


@pytest.mark.parametrize("width", range(14, 100, 4))
def test_every_letter_is_there_and_no_line_is_wider_than_the_screen(width):
    lines = printed(jobs(), width)
    assert max(map(len, lines)) <= width
    shown = "".join("".join(lines).split())
    assert sorted(shown) == sorted("".join(["jobnamestatussubmittedduration"] + [c.replace(" ", "") for c in CELLS]))


def test_a_table_is_not_narrowed_for_ever():
    table = jobs()
    printed(table, 40)
    assert len(printed(table, 120)) == 2


def test_a_pipe_has_room_for_all(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    data_screen().print(jobs())
    assert f"{JOB}  train  FINISHED: COMPLETED" in capsys.readouterr().out


def test_no_command_makes_tables_that_cut():
    """rich's own tables crop: every module of the command lines takes `WholeTable`."""
    root = Path(__file__).parents[2]
    for file in [*(root / "silo_app" / "cli").glob("*.py"), root / "provisioning" / "cli.py"]:
        names = {node.func.id for node in ast.walk(ast.parse(file.read_text())) if is_call(node)}
        assert "Table" not in names, file.name


def is_call(node):
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
