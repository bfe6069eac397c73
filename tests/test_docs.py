"""What the documentation names is there: commands, options, settings, routes, files, headings."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from server.app import create_app
from server.cli import app
from server.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
TRACKED = subprocess.run(
    ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
).stdout.splitlines()
PAGES = {
    name: (ROOT / name).read_text(encoding="utf-8")
    for name in TRACKED
    if name.endswith(".md") and name != "CHANGELOG.md"
}
SOURCES = "".join(
    (ROOT / name).read_text(encoding="utf-8")
    for name in TRACKED
    if name.endswith((".py", "Makefile", "Dockerfile")) and name != "tests/test_docs.py"
)
FOLDERS = "model|server|clients|tests|weights|deploy|benchmarks|docs"


def commands(command: Any = None, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every command and group of commands, by the words that are typed."""
    command = command or typer.main.get_command(app)
    yield name, command
    for word, below in getattr(command, "commands", {}).items():
        yield from commands(below, f"{name} {word}".strip())


COMMANDS = dict(commands())


def options(name: str) -> set[str]:
    return {option for each in COMMANDS[name].params for option in each.opts} | {"--help"}


def typed(page: str) -> Iterator[tuple[str, str]]:
    """Every `gdkvm` command of a page, and what stands behind it."""
    text = page.replace("\\\n", " ")
    for words, rest in re.findall(r"(?<![\w/-])gdkvm ((?:[a-z-]+ ?)+)([^`\n|;#]*)", text):
        names = [name for name in COMMANDS if name and f"{words} ".startswith(f"{name} ")]
        if names:
            yield max(names, key=len), words + rest
        elif not words.startswith("-"):
            yield words, rest


@pytest.mark.parametrize("page", PAGES)
def test_every_command_and_option_that_a_page_types_exists(page: str) -> None:
    for name, line in typed(PAGES[page]):
        assert name in COMMANDS
        assert set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", line)) <= options(name), line


@pytest.mark.parametrize("page", PAGES)
def test_every_setting_that_a_page_names_exists(page: str) -> None:
    named = set(re.findall(r"\bGDKVM_[A-Z_]+[A-Z]\b", PAGES[page]))
    settings = {f"GDKVM_{name.upper()}" for name in Settings.model_fields}
    assert [name for name in named - settings if name not in SOURCES] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_file_and_module_that_a_page_names_exists(page: str) -> None:
    text = PAGES[page]
    files = set(re.findall(rf"`((?:{FOLDERS})/[\w/.-]*\w)`", text))
    modules = set(re.findall(rf"python3? -m ((?:{FOLDERS})[\w.]*\w)", text))
    files |= {name.replace(".", "/") for name in modules}
    endings = ("", ".py", ".toml")
    missing = [
        name for name in files if not any((ROOT / f"{name}{end}").exists() for end in endings)
    ]
    assert missing == []


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_page_and_its_heading(page: str) -> None:
    for path, heading in re.findall(r"\]\((?!\w+://)([^)#\s]*)#?([^)\s]*)\)", PAGES[page]):
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), path
        if heading:
            lines = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", line).lower().replace(" ", "-") for line in lines}
            assert heading in anchors


def shape(path: str) -> str:
    """A route whatever its parameters are called."""
    return re.sub(r"\{\w+\}", "{}", path)


def test_the_pages_name_every_route_and_no_other(tmp_path: Path) -> None:
    told = create_app(Settings(clip_dir=tmp_path)).openapi()["paths"]
    routes = {shape(path) for path in told} | {"/v1/stream"}
    text = "\n".join(PAGES.values())
    named = set(re.findall(r"(?:/v1|/dicom-web)(?:/[\w{}.-]*[\w}])+", text))
    examples = {re.sub(r"/c_\w{16}(?=/|$)", "/{}", path) for path in named}
    examples = {re.sub(r"/frames/\d+$", "/frames/{}", path) for path in examples}
    assert {shape(path) for path in examples} - routes == set()
    assert [path for path in routes if path not in shape(text)] == []


def test_the_page_of_clips_names_every_parameter(tmp_path: Path) -> None:
    told = create_app(Settings(clip_dir=tmp_path)).openapi()["paths"]
    names = {
        each["name"]
        for path in told.values()
        for route in path.values()
        for each in route.get("parameters", ())
        if each["in"] == "query"
    }
    assert {"view", "wait_s", "deidentify"} <= names
    page = PAGES["docs/clips-api.md"]
    assert [name for name in names if not re.search(rf"[?&`]{name}\b", page)] == []


def test_the_page_of_commands_names_each_and_which_of_them_say_json() -> None:
    page = PAGES["docs/command-line.md"]
    (table,) = re.findall(r"(?:^\|.*\n)+?(?=\n`make install`)", page, re.MULTILINE)
    ends = {name for name, command in COMMANDS.items() if not hasattr(command, "commands")}
    assert ends <= {name for name, _ in typed(table)}
    told = re.search(r"say `--json` \(([^)]*)\)", page)
    assert told is not None
    with_json = {name for name in COMMANDS if "--json" in options(name)} - {"bench server"}
    assert set(re.findall(r"`([a-z -]+)`", told[1])) == with_json
