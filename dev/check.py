"""`make check`: the fast half of the proof, in under a minute. Each check prints a line; all run even if one fails."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from dev.paths import ROOT, Ports

BIN: Final = Path(sys.executable).parent
PYTHON_FOLDERS: Final = ("servers", "sandbox", "clients", "dev", "tests/support")


def command(*words: str) -> Callable[[], str]:
    """Return a check that runs a program; its output is the complaint."""

    def run() -> str:
        done = subprocess.run([BIN / words[0], *words[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
        return (done.stdout + done.stderr) if done.returncode else ""

    return run


def module(*words: str) -> Callable[[], str]:
    """Return a check that runs a Python module."""
    return command("python", "-m", *words)


def buf_lint() -> str:
    """Lint our own files in the committed descriptor set; Google's are not ours to mend."""
    complaint = command("buf", "lint", "generated/descriptors/paymesh.binpb", "--config", "buf.yaml")()
    return "\n".join(line for line in complaint.splitlines() if line.startswith("paymesh/"))


def buf_breaking() -> str:
    """Compare the contract with the newest release's; before the first release, with the commit before this one."""
    tag = ["git", "describe", "--tags", "--abbrev=0", "--match", "v[0-9]*"]
    found = subprocess.run(tag, cwd=ROOT, capture_output=True, text=True, check=False)
    before = found.stdout.strip() or "HEAD~1"
    shown = subprocess.run(
        ["git", "show", f"{before}:generated/descriptors/paymesh.binpb"], cwd=ROOT, capture_output=True, check=False
    )
    if shown.returncode:
        return ""  # a history of one commit
    with tempfile.NamedTemporaryFile(suffix=".binpb") as image:
        image.write(shown.stdout)
        image.flush()
        return command("buf", "breaking", "generated/descriptors/paymesh.binpb", "--against", image.name)()


def envoy_config() -> str:
    """Render the edge's configuration and have Envoy itself validate it."""
    from dev import edge, pki

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        pki.Authority(folder / "ca", "mesh").issue(folder / "edge", names=pki.mesh_names("edge"), common_name="edge")
        for name in ("edge", "mesh"):
            (folder / f"sds-{name}.yaml").write_text(edge.sds(name, folder / "edge"))
        settings = edge.EdgeSettings(
            ports=Ports(), run_dir=folder, mesh_dir=folder / "edge", issuer="https://localhost:8443"
        )
        (folder / "envoy.yaml").write_text(edge.render(settings))
        return command("envoy", "--mode", "validate", "-c", str(folder / "envoy.yaml"), "--log-level", "error")()


CHECKS: Final[Sequence[tuple[str, Callable[[], str]]]] = (
    ("format", command("ruff", "format", "--check", ".")),
    ("lint", command("ruff", "check", ".")),
    ("contract format", command("buf", "format", "-d", "--exit-code", "proto")),
    ("contract lint", buf_lint),
    ("contract breaking", buf_breaking),
    ("generated drift", module("dev.proto", "--check")),
    ("layers", command("lint-imports")),
    ("edge config", envoy_config),
    ("types", command("mypy", *PYTHON_FOLDERS)),
    ("schema", module("pytest", "-q", "tests/integration/test_schema.py")),
    ("unit", module("pytest", "-q", "tests/unit", "tests/property", "tests/architecture")),
)


def main() -> int:
    """Run every check. Returns the exit code."""
    failed = []
    for name, check in CHECKS:
        began = time.monotonic()
        complaint = check()
        print(f"  {name:<18} {'FAILED' if complaint else 'ok':<7} {time.monotonic() - began:5.1f} s", flush=True)
        if complaint:
            failed.append(name)
            print("    " + "\n    ".join(complaint.strip().splitlines()[-60:]), flush=True)
    print(
        f"check: {len(CHECKS) - len(failed)} of {len(CHECKS)} passed"
        + (f"; FAILED: {', '.join(failed)}" if failed else "")
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
