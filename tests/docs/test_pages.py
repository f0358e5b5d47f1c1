"""Documentation that is wrong fails here: links, commands, settings and paths that do not exist."""

import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "jobs").rglob("*.md")]
    if path.name != "LICENSE.md"
)
NAMES = [path.relative_to(ROOT).as_posix() for path in PAGES]
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
EXPLANATIONS = {
    "docs/glossary.md",
    "docs/decisions/README.md",
    "docs/ref-cli.md",
    "docs/ref-silo.md",
    "docs/errors/README.md",
}


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def anchors(text: str) -> set[str]:
    """The anchors that GitHub makes of headings."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name):
    for target in LINK.findall(text_of(name)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / name).parent / path if path else ROOT / name
        assert file.exists(), f"{target} leads nowhere"
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), f"{target} leads to no heading"


def test_every_page_can_be_reached_from_the_readme():
    seen, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        targets = [target.partition("#")[0] for target in LINK.findall(page.read_text(encoding="utf-8"))]
        waiting += [(page.parent / target).resolve() for target in targets if target and not target.startswith("https://")]
    missing = {path.relative_to(ROOT).as_posix() for path in PAGES} - {
        path.relative_to(ROOT).as_posix() for path in seen if path.is_relative_to(ROOT)
    }
    assert missing == set()


def test_kinds_of_pages_are_told_by_their_names():
    kinds = re.compile(
        r"docs/((tutorial|how-to|explanation|ref)-[a-z-]+\.md|(glossary|errors/README|decisions/[a-zA-Z0-9-]+)\.md)$"
    )
    assert [name for name in NAMES if name.startswith("docs/") and not kinds.match(name)] == []


def commands(name: str) -> list[list[str]]:
    """The commands in a page's console blocks."""
    blocks = re.findall(r"```console\n(.*?)```", text_of(name), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    parts = [part for line in lines for part in re.split(r"\s&&\s|;", re.split(r"\s+# ", line.removeprefix("$ "))[0])]
    return [words for words in map(shlex.split, parts) if words]


WRITTEN = [name for name in NAMES if name != "docs/ref-cli.md" and commands(name)]


def group_of(program: str):
    from provisioning.cli import app as consortium
    from silo_app.cli.main import app as silo

    return typer.main.get_command({"silo": silo, "consortium": consortium}[program])


def options_of(command) -> set[str]:
    return {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}


@pytest.mark.parametrize("name", WRITTEN)
def test_commands_in_pages_exist_with_their_options(name):
    for words in commands(name):
        if words[0] not in {"silo", "consortium"}:
            continue
        command, rest = group_of(words[0]), words[1:]
        while hasattr(command, "commands"):
            assert rest, f"{' '.join(words)} names no command"
            assert rest[0] in command.commands, f"{' '.join(words)}: no such command"
            command, rest = command.commands[rest[0]], rest[1:]
        used = {word.split("=")[0] for word in rest if re.match(r"--?[a-z]", word)}
        assert used <= options_of(command), f"{' '.join(words)}: unknown options"


@pytest.mark.parametrize("name", WRITTEN)
def test_make_targets_in_pages_exist(name):
    targets = set(re.findall(r"^([a-z]+):.*##", text_of("Makefile"), re.MULTILINE))
    variables = set(re.findall(r"^([A-Z_]+) \?=", text_of("Makefile"), re.MULTILINE))
    for words in commands(name):
        if words[0] == "make":
            assert {word for word in words[1:] if "=" not in word} <= targets
            assert {word.split("=")[0] for word in words[1:] if "=" in word} <= variables


def test_the_readme_names_the_commands_that_start_everything():
    started = [" ".join(words) for words in commands("README.md")]
    assert "make demo" in started
    assert "make test" in started


def test_every_claim_about_security_names_a_test_that_exists():
    rows = re.findall(r"^\| (.+?) \| (`tests/.+`) \|$", text_of("README.md"), re.MULTILINE)
    assert len(rows) >= 6
    for claim, tests in rows:
        for path in re.findall(r"`([^`]+)`", tests):
            assert (ROOT / path).is_file(), f"{claim}: there is no {path}"


@pytest.mark.parametrize("name", [name for name in NAMES if "```yaml" in text_of(name)])
def test_yaml_in_pages_is_valid_configuration(name):
    from provisioning.consortium import Server
    from silo_app.config import SiloConfig

    for block in re.findall(r"```yaml\n(.*?)```", text_of(name), re.DOTALL):
        content = yaml.safe_load(block)
        if "server" in content:
            Server.model_validate(content["server"])
        else:
            SiloConfig.model_validate(content)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in EXPLANATIONS])
def test_code_that_pages_speak_of_exists(name):
    for path in re.findall(r"`((?:silo_app|provisioning|jobs|tests|docs|benchmarks)/[\w./-]+)`", text_of(name)):
        assert (ROOT / path).exists(), f"{path} does not exist"


def test_the_glossary_has_the_words_of_the_code():
    page = text_of("docs/glossary.md")
    for word in ("silo", "site", "case", "finding", "encoder version", "generation", "broker", "gateway", "sum", "release"):
        assert f"**{word}**" in page


def test_what_the_encryption_page_says_of_attacks_is_what_the_tests_carry_out():
    page, attacks = text_of("docs/explanation-encryption.md"), text_of("tests/aggregation/test_attacks.py")
    assert "xfail" not in attacks
    assert "docs/explanation-encryption.md#who-may-collude" in text_of("README.md")
    said_to_succeed = {
        "plain updates": "test_the_attack_succeeds_against_plain_updates",
        "startup kit": "test_the_attack_succeeds_against_the_shared_key_of_stock_encryption",
        "without masks": "test_the_attack_succeeds_against_a_shared_key_without_masks",
        "With k = 2": "test_a_quorum_of_two_does_not_withstand_a_lying_server_with_an_accomplice",
        "above the limits": "test_a_quorum_that_is_too_small_is_what_the_attack_needs",
    }
    for words, test in said_to_succeed.items():
        assert words in page
        assert re.search(rf"def {test}\(.*?(?:assert .*? > RECOVERED)", attacks, re.DOTALL)


def test_the_encryption_page_has_the_thresholds_of_the_code():
    from silo_app.aggregation.settings import threshold

    rows = re.findall(
        r"^\| (\d+) \| (\d+) \| (\d+) \| (\d+).*? \| (\d+) \| (\d+) \|$",
        text_of("docs/explanation-encryption.md"),
        re.MULTILINE,
    )
    assert len(rows) >= 8
    for silos, quorum, needed, passive, active, dropouts in (tuple(map(int, row)) for row in rows):
        assert needed == threshold(silos, quorum)
        assert (passive, active, dropouts) == (needed - 1, quorum - 2, silos - needed)


def test_decisions_are_listed_and_say_what_was_rejected():
    listed = text_of("docs/decisions/README.md")
    for path in (ROOT / "docs" / "decisions").glob("*.md"):
        if path.name != "README.md":
            text = path.read_text(encoding="utf-8")
            assert f"({path.name})" in listed
            for part in ("Status: ", "## Situation", "## Decision", "## Rejected"):
                assert part in text, f"{path.name} has no {part}"


def test_the_changelog_is_in_the_form_it_claims():
    headings = re.findall(r"^## (.+)$", text_of("CHANGELOG.md"), re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", heading) for heading in headings[1:])
    kinds = set(re.findall(r"^### (.+)$", text_of("CHANGELOG.md"), re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_page_of_jobs_lists_every_setting_of_a_training():
    from silo_app.encoder.plan import TrainingPlan
    from silo_app.encoder.settings import PrivacyPlan

    listed = set(re.findall(r"^\| `([\w.*]+)` \|", text_of("jobs/README.md"), re.MULTILINE))
    groups = {"encoder", "training", "averaging", "privacy"}
    wanted = set(TrainingPlan.model_fields) - groups - {"resume", "admit"}  # these two are options of the command
    assert wanted | {f"privacy.{name}" for name in PrivacyPlan.model_fields} <= listed
    assert {"encoder.*", "training.*", "averaging.*"} <= listed
