"""The house rules that no linter knows: no network in a transaction, short functions, short modules, READMEs that list what is
there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev.paths import ROOT

FUNCTION_LINES_MAX = 70
MODULE_LINES_MAX = 500
# The ratchet: modules that are over the limit may only shrink.
MODULES_OVER: dict[str, int] = {}
OUTSIDE = {"gateway", "ledger", "ledger_outbound", "outbound", "payments"}
FOLDERS = ("servers", "sandbox", "clients", "dev")


def modules() -> list[Path]:
    """Return every module of ours."""
    return sorted(path for folder in FOLDERS for path in Path(ROOT, folder).rglob("*.py"))


def blocks_with_a_transaction(tree: ast.AST) -> Iterator[ast.AsyncWith]:
    """Return every `async with ….uow() as …` block."""
    for node in ast.walk(tree):
        if isinstance(node, ast.AsyncWith) and any(
            isinstance(item.context_expr, ast.Call) and ast.unparse(item.context_expr.func).endswith(".uow")
            for item in node.items
        ):
            yield node


def outside_calls(block: ast.AsyncWith) -> list[str]:
    """Return the calls in a block that leave the process: `deps.gateway.x`, `deps.ledger.x`, `deps.payments.x`, and
    `deps.outbound.execute`."""
    found = []
    for node in ast.walk(block):
        if isinstance(node, ast.Await) and isinstance(node.value, ast.Call):
            parts = ast.unparse(node.value.func).split(".")
            if parts[0] != "uow" and OUTSIDE & set(parts[:-1]):
                found.append(".".join(parts))
    return found


@pytest.mark.parametrize("path", [p for p in modules() if "servers" in p.parts], ids=lambda p: str(p.relative_to(ROOT)))
def test_no_transaction_spans_a_network_call(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert [call for block in blocks_with_a_transaction(tree) for call in outside_calls(block)] == []


def test_the_check_above_catches_one() -> None:
    bad = ast.parse("async def f():\n    async with deps.db.uow() as uow:\n        await deps.gateway.confirm(x)\n")
    assert [call for block in blocks_with_a_transaction(bad) for call in outside_calls(block)] == [
        "deps.gateway.confirm"
    ]


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_functions_and_modules_stay_short(path: Path) -> None:
    text = path.read_text()
    name = path.relative_to(ROOT).as_posix()
    assert len(text.splitlines()) <= MODULES_OVER.get(name, MODULE_LINES_MAX)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
            allowed = 90 if "migrations" in path.parts else FUNCTION_LINES_MAX
            assert node.end_lineno - node.lineno < allowed, f"{name}:{node.lineno} {node.name}"


READMES = sorted(Path(ROOT, "servers").glob("*/README.md"))


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name)
def test_a_readme_lists_the_files_of_its_folder(readme: Path) -> None:
    table = readme.read_text().partition("| file | job |\n")[2].partition("\n\n")[0]
    listed = re.findall(r"^\| `([^`]+)` \| \S.* \|$", table, re.MULTILINE)
    hidden = {"README.md", "__init__.py", "__pycache__"}
    there = [path for path in readme.parent.iterdir() if path.name not in hidden]
    assert listed == sorted(f"{path.name}/" if path.is_dir() else path.name for path in there)


def test_every_domain_has_a_readme() -> None:
    domains = {path.parent for path in Path(ROOT, "servers").glob("*/main.py")}
    assert {readme.parent for readme in READMES} >= domains
