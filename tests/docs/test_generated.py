"""Pages that come from the code are what the code says today; `make docs` writes them."""

import pytest

from silo_app import errors


@pytest.mark.parametrize("name", ["ref-cli.md", "ref-silo.md", "ref-figures.md", "errors/README.md"])
def test_the_page_is_up_to_date(generate, name):
    (path,) = [path for path in generate.PAGES if path.relative_to(generate.DOCS).as_posix() == name]
    assert path.read_text(encoding="utf-8") == generate.PAGES[path](), "run `make docs`"


def test_every_error_code_has_its_page_section_and_a_remedy(generate):
    page = generate.error_page()
    codes = {getattr(errors, name).code for name in errors.__all__}
    assert generate.REMEDIES.keys() == codes
    for code in codes:
        assert page.count(f"\n## {code}\n") == 1
    assert "NOT WRITTEN" not in page


def test_no_two_errors_share_a_code():
    codes = [getattr(errors, name).code for name in errors.__all__]
    assert sorted(codes) == sorted(set(codes))


def test_the_tree_at_the_top_of_errors_names_every_class():
    for name in errors.__all__:
        assert name in (errors.__doc__ or "")


def test_every_setting_of_a_silo_is_explained(generate):
    empty = [line for line in generate.settings_page().splitlines() if line.startswith("| `") and line.endswith("|  |")]
    assert empty == []


def test_every_command_says_what_it_does_and_shows_an_example(generate):
    import typer

    from provisioning.cli import app as consortium
    from silo_app.cli.main import app as silo

    for app in (silo, consortium):
        group = typer.main.get_command(app)
        for path, command in leaves(group):
            assert "Example" in (command.help or ""), f"{path} has no example in its help"


def leaves(group, path=""):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from leaves(command, f"{path} {name}")
        else:
            yield f"{path} {name}".strip(), command
