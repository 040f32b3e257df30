"""`make proto`: the stubs, their types and the descriptor set, from `proto/` with the pinned grpcio-tools.

`python -m dev.proto` writes `generated/`; `python -m dev.proto --check` writes to a temporary folder and fails where
`generated/` differs. Committed stubs are made only here, because gencode and the protobuf runtime move together.
"""

from __future__ import annotations

import argparse
import filecmp
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
GENERATED = ROOT / "generated"
PINS = {"grpcio-tools": "1.76.0", "protobuf": "6.33.6"}
DETAILS = ("google/rpc/error_details.proto", "google/rpc/status.proto")


class GenerationFailed(Exception):
    """protoc refused; its own words are in the message."""


def own_files() -> list[str]:
    """Return every contract file, relative to `proto/`."""
    return sorted(path.relative_to(PROTO).as_posix() for path in PROTO.rglob("*.proto"))


def write_validate_descriptor(target: Path) -> None:
    """Write the descriptor of `buf/validate/validate.proto`, which protovalidate's wheel carries only in compiled form.

    It leans on a private module of protovalidate; `tests/unit/test_contract.py` notices when that moves.
    """
    from google.protobuf import descriptor_pb2
    from protovalidate._gen.buf.validate import validate_pb

    files = descriptor_pb2.FileDescriptorSet()
    for name in ("descriptor", "duration", "field_mask", "timestamp"):
        module = __import__(f"google.protobuf.{name}_pb2", fromlist=["DESCRIPTOR"])
        module.DESCRIPTOR.CopyToProto(files.file.add())
    files.file.add().ParseFromString(validate_pb._DESC.proto.to_binary())
    target.write_bytes(files.SerializeToString())


def protoc(*arguments: str) -> None:
    """Run the pinned protoc. Raises GenerationFailed with its output."""
    import google.api
    import grpc_tools

    common = Path(next(iter(google.api.__path__))).parent.parent
    wellknown = Path(grpc_tools.__file__).parent / "_proto"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO}", f"-I{common}", f"-I{wellknown}", *arguments]
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise GenerationFailed(done.stdout + done.stderr)


def generate(target: Path) -> None:
    """Write stubs, typing stubs and `descriptors/paymesh.binpb` below `target`."""
    for package, pinned in PINS.items():
        if version(package) != pinned:
            raise GenerationFailed(f"{package} is {version(package)}, but stubs are made by {pinned} only")
    target.mkdir(parents=True, exist_ok=True)
    (target / "descriptors").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        validate = Path(scratch) / "validate.binpb"
        write_validate_descriptor(validate)
        protoc(
            f"--descriptor_set_in={validate}",
            f"--python_out={target}",
            f"--mypy_out=quiet:{target}",
            "buf/validate/validate.proto",
        )
        protoc(
            f"--descriptor_set_in={validate}",
            f"--python_out={target}",
            f"--mypy_out=quiet:{target}",
            f"--grpc_python_out={target}",
            f"--mypy_grpc_out=quiet:{target}",
            *own_files(),
        )
        write_descriptor_set(target / "descriptors" / "paymesh.binpb", validate)
    for stub in target.rglob("*_pb2_grpc.py*"):
        # A contract file without a service gets an empty stub module; nobody imports it.
        if "Stub" not in stub.read_text():
            stub.unlink()


def write_descriptor_set(target: Path, validate: Path) -> None:
    """Write the set that Envoy, `buf lint` and the policy tests read: our files and all they import, with comments.

    The error details are compiled in although nothing of ours imports them: Envoy prints an error's details as JSON only
    where it knows their types.
    """
    protoc(
        f"--descriptor_set_in={validate}",
        "--include_imports",
        "--include_source_info",
        f"--descriptor_set_out={target}",
        *own_files(),
        *DETAILS,
    )


def differing(left: Path, right: Path) -> list[str]:
    """Return the files below `left` and `right` that are not byte for byte the same."""
    names = {p.relative_to(d).as_posix() for d in (left, right) for p in d.rglob("*") if p.is_file()}
    names = {name for name in names if "__pycache__" not in name}
    return sorted(
        name
        for name in names
        if not (left / name).is_file()
        or not (right / name).is_file()
        or not filecmp.cmp(left / name, right / name, shallow=False)
    )


def main() -> int:
    """Generate, or check. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail where generated/ differs from the contract")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        fresh = Path(scratch) / "generated"
        try:
            generate(fresh)
        except GenerationFailed as failure:
            print(failure, file=sys.stderr)
            return 1
        if arguments.check:
            changed = differing(fresh, GENERATED)
            if changed:
                print("generated/ differs from proto/; run `make proto`:\n  " + "\n  ".join(changed), file=sys.stderr)
            return 1 if changed else 0
        shutil.rmtree(GENERATED, ignore_errors=True)
        shutil.copytree(fresh, GENERATED)
    return 0


if __name__ == "__main__":
    sys.exit(main())
