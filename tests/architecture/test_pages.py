"""The pages are true: their links lead somewhere, the files they name are there, and the ports they tell are those of the stack."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from dev.paths import PREFIX, ROOT, Ports

PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("servers/*/*.md"), ROOT / "sandbox/README.md"]
)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
FUNCTIONS = [f"F{number}" for number in range(1, 10)]
TECHNOLOGY = [f"T{number}" for number in range(1, 24)]


def anchors(page: Path) -> set[str]:
    """Return what of a page can be linked to."""
    headings = HEADING.findall(FENCED.sub("", page.read_text()))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in LINK.findall(FENCED.sub("", page.read_text())):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def requirements() -> list[tuple[str, str, str]]:
    """Return the rows of the page of requirements: id, state, where."""
    rows = re.findall(
        r"^\| (\S+) \| .+ \| (met|in part|not yet) \| (.*)\|$", (ROOT / "docs/requirements.md").read_text(), re.M
    )
    return [(identifier, state, where.strip()) for identifier, state, where in rows]


def test_every_requirement_has_a_row_that_says_where_it_is_met_or_that_it_is_not_yet() -> None:
    rows = requirements()
    named = [identifier for identifier, _, _ in rows if identifier not in ("–", "shape")]
    assert named == [*FUNCTIONS, *TECHNOLOGY]
    for identifier, state, where in rows:
        assert state == "not yet" or "`" in where or "](" in where, identifier
        assert state != "in part" or "not yet" in where, f"{identifier}: say which part is not yet"


def test_every_file_and_target_that_the_requirements_name_is_there() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for _, _, where in requirements():
        for named in re.findall(r"`([^`]+)`", where):
            if named.startswith("make "):
                assert named.removeprefix("make ") in targets
            elif "/" in named and " " not in named and named not in ("k8s/", "migrations/"):
                assert (ROOT / named).exists(), named


def test_the_table_of_ports_is_the_stacks() -> None:
    rows = re.findall(r"^\| .+ \| (\d+) \| `(\w+)` \|$", (ROOT / "docs/architecture.md").read_text(), re.MULTILINE)
    assert [(name, int(port)) for port, name in rows] == [
        (PREFIX + field.name.upper(), field.default) for field in fields(Ports)
    ]
