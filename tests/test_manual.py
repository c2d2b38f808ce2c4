"""What the manual promises beside its programs: commands that exist, links that lead on, every public name."""

import ast
import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest

from pydistill import _ELSEWHERE
from tests.test_docs import PAGES, ROOT

PUBLIC = ["", "ops", "losses", "distiller", "schedule", "adapters", "taps", "heads"]
PUBLIC += [f"hosts.{host}" for host in ("lightning", "torchdistill", "mmdet", "transformers", "detr")]
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text() for page in [*PAGES, ROOT / "CONTRIBUTING.md"]}
MANUAL = "\n".join(text for page, text in TEXTS.items() if page.startswith("docs/"))
LANGUAGES = {"python", "console", "text", "yaml", "{eval-rst}", "{include}", "{toctree}"}
MAKEFILE = (ROOT / "Makefile").read_text()


def commands_of(text):
    """The lines of consoles, and what stands inline as a command of ours."""
    consoles = re.findall(r"^```console\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line.removeprefix("$ ") for console in consoles for line in console.splitlines() if line.startswith("$ ")]
    lines += re.findall(r"^    ((?:pydistill|make|python|cmake) .*)$", text, re.MULTILINE)
    lines += re.findall(r"`((?:pydistill|make|python) [^`\n]*)`", text)
    return [part.strip() for line in lines for part in re.split(r"&&|\|(?= )", line)]


COMMANDS = sorted({(page, command) for page, text in TEXTS.items() for command in commands_of(text)})


def fault(command, cli=None):
    """What of a command line does not exist here; None where all of it does."""
    program, *words = shlex.split(command, comments=True)
    if program == "pydistill":
        return fault_of_cli(words, cli)
    if program == "make":
        verbs = re.search(r"^\.PHONY: (.*)", MAKEFILE, re.MULTILINE)[1].split()
        return next((w for w in words if "=" not in w and w not in verbs), None)
    if program == "python" and words[:1] == ["-m"] and words[1].startswith("pydistill"):
        return None if find_spec(words[1]) else words[1]
    if program == "python" and words and words[0].startswith(("tools/", "pydistill/", "benchmarks/")):
        return None if (ROOT / words[0]).exists() else words[0]
    return None


def fault_of_cli(words, command):
    """The first of ``words`` that is neither a command nor an option where it stands."""
    for word in words:
        if word.startswith("-"):
            known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
            if word.partition("=")[0] not in known | {"--help"}:
                return word
        elif hasattr(command, "commands"):
            names = word.split("|")  # generate|train|evaluate|predict
            if not all(name in command.commands for name in names):
                return word
            command = command.commands[names[-1]]
    return None


@pytest.fixture(scope="module")
def cli():
    typer = pytest.importorskip("typer", reason="needs pip install 'pydistill[train]'")
    from pydistill.commands import app

    return typer.main.get_command(app)


def test_commands_exist(cli):
    assert {program for _, line in COMMANDS for program in line.split()[:1]} >= {"pydistill", "make", "pip", "python"}
    assert len(COMMANDS) > 50
    assert {(page, line): bad for page, line in COMMANDS if (bad := fault(line, cli))} == {}


@pytest.mark.parametrize(
    ("line", "bad"),
    [
        ("pydistill train lanes --sad  # a comment --that says", None),
        ("pydistill train lanes --sads", "--sads"),
        ("pydistill train cars", "cars"),
        ("pydistill generate|trains lanes", "generate|trains"),
        ("make tests", "tests"),
        ("make test ARGS=-x", None),
        ("python tools/nothing.py", "tools/nothing.py"),
        ("python -m pydistill.nothing", "pydistill.nothing"),
    ],
)
def test_faults_are_found(cli, line, bad):
    assert fault(line, cli) == bad


def test_blocks_have_known_languages():
    """A block in a language that no test knows would not run, and nobody would notice."""
    found = {language for text in TEXTS.values() for language in re.findall(r"^ *```([^\s`]+)", text, re.MULTILINE)}
    assert found <= LANGUAGES


def test_links_outside_the_manual_lead_somewhere():
    """Sphinx looks after the links of docs/."""
    links = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", TEXTS["README.md"] + TEXTS["CONTRIBUTING.md"])
    assert len(links) > 10
    assert [link for link in links if not (ROOT / link).exists()] == []


def names_of(module):
    """The ``__all__`` of a module, read without importing it: hosts may be absent."""
    file = ROOT / "pydistill" / Path(*module.split("."))
    text = next(f for f in (file / "__init__.py", file.with_suffix(".py")) if f.exists()).read_text()
    assigned = [node for node in ast.parse(text).body if isinstance(node, ast.Assign)]
    (names,) = [node.value for node in assigned if getattr(node.targets[0], "id", "") == "__all__"]
    return ast.literal_eval(names)


def documented(manual):
    """The names that autodoc's directives bring into the manual."""
    names = set(re.findall(r"^\.\. auto(?:class|function|data):: (\S+)", manual, re.MULTILINE))
    for module, options in re.findall(r"^\.\. automodule:: pydistill\.(\S+)\n((?:   .*\n)*)", manual, re.MULTILINE):
        members = re.search(r":members:(.*)", options)[1].replace(",", " ").split() or names_of(module)
        names |= {f"pydistill.{module}.{name}" for name in members}
    return names | {f"pydistill.{where}.{name}" for name, where in _ELSEWHERE.items() if f"pydistill.{name}" in names}


@pytest.mark.parametrize("module", PUBLIC)
def test_reference_has_every_public_name(module):
    path = ".".join(filter(None, ["pydistill", module]))
    absent = {f"{path}.{name}" for name in names_of(module)} - documented(MANUAL)
    assert absent <= {"pydistill.__version__", "pydistill.losses", "pydistill.ops"}  # the version, and whole pages


def test_what_is_not_in_the_manual_is_noticed():
    assert documented(".. automodule:: pydistill.heads\n   :members: A, B\n") == {
        "pydistill.heads.A",
        "pydistill.heads.B",
    }
    assert documented(".. automodule:: pydistill.heads\n   :members:\n") == {"pydistill.heads.DistributionHead"}
    assert documented(".. autoclass:: pydistill.Term\n") == {"pydistill.Term", "pydistill.schedule.Term"}
