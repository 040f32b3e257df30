"""The parts of the local stack: what each runs, needs, and knows."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import ssl
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc
import httpx
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dev import edge, pki
from dev.paths import DOMAINS, PREFIX, Ports, StackRefused
from dev.postgres import EmbeddedPostgres
from dev.secrets import SecretFolder
from dev.supervisor import Part

AUDIT: Final = "audit"
RENEW_SECONDS: Final = 600.0
FEE_PLAN: Final = {"version": "2026-11", "basis_points": 150, "fixed_minor": {"USD": 25, "EUR": 25}}


@dataclass(frozen=True, kw_only=True)
class Stack:
    """The local stack in one folder."""

    folder: Path
    ports: Ports
    postgres: EmbeddedPostgres | None
    secrets: SecretFolder
    mesh: pki.Authority
    public: pki.Authority
    bcrypt_cost: int = 12

    @property
    def edge_url(self) -> str:
        """Return the address of the edge."""
        return f"https://localhost:{self.ports.edge}"

    @property
    def ca_file(self) -> Path:
        """Return the certificate that vouches for the edge."""
        return self.public.certificate_file

    def mesh_dir(self, name: str) -> Path:
        """Return the folder with a mesh certificate."""
        return self.folder / "tls" / name

    def admin_url(self) -> str:
        """Return the address of the database server for migrations."""
        if self.postgres is None:
            return os.environ["DATABASE_URL"]
        return self.postgres.url()

    def database_url(self, database: str, role: str) -> str:
        """Return the address under which a role reaches a database."""
        host = self.admin_url().rsplit("@", 1)[1].split("/", 1)[0]
        return f"postgresql://paymesh_{role}:{self.secrets.password(f'role_{role}')}@{host}/{database}"


def make_stack(folder: Path, ports: Ports, *, durable: bool = True, bcrypt_cost: int = 12) -> Stack:
    """Prepare folders, authorities, secrets and Postgres' data."""
    folder.mkdir(parents=True, exist_ok=True)
    private = folder / "private"
    secrets = SecretFolder(private / "made")
    postgres = None
    if "DATABASE_URL" not in os.environ:
        postgres = EmbeddedPostgres(
            folder / "postgres", port=ports.postgres, password=secrets.password("postgres"), durable=durable
        )
    stack = Stack(
        folder=folder,
        ports=ports,
        postgres=postgres,
        secrets=secrets,
        mesh=pki.Authority(private / "ca", "mesh"),
        public=pki.Authority(private / "ca", "edge"),
        bcrypt_cost=bcrypt_cost,
    )
    renew(stack)
    pki.signing_key(private / "jwt")
    (folder / "crash").mkdir(exist_ok=True)
    (folder / "run").mkdir(exist_ok=True)
    return stack


def renew(stack: Stack) -> None:
    """Issue every leaf that is missing or past half of its life, and tell Envoy by renaming its secret files."""
    renewed = False
    for name in (*DOMAINS, "edge", "dev"):
        if pki.due(stack.mesh_dir(name)):
            stack.mesh.issue(stack.mesh_dir(name), names=pki.mesh_names(name), common_name=name)
            renewed = True
    if pki.due(stack.mesh_dir("public")):
        stack.public.issue(stack.mesh_dir("public"), names=pki.edge_names(), common_name="localhost")
        renewed = True
    run = stack.folder / "run"
    if renewed or not (run / "sds-mesh.yaml").exists():
        run.mkdir(exist_ok=True)
        pki.write_private(run / "sds-edge.yaml", edge.sds("edge", stack.mesh_dir("public")).encode())
        pki.write_private(run / "sds-mesh.yaml", edge.sds("mesh", stack.mesh_dir("edge")).encode())


async def keep_renewed(stack: Stack) -> None:
    """Renew certificates until cancelled."""
    while True:
        await asyncio.sleep(RENEW_SECONDS)
        await asyncio.to_thread(renew, stack)


def check_ports(stack: Stack) -> None:
    """Refuse to start where a port is in use, naming the setting that moves it. Raises StackRefused."""
    skipped = set()
    if stack.postgres is None:
        skipped.add("postgres")
    if "STRIPE_API_KEY" in os.environ:
        skipped.add("stripe_sandbox")
    for name in type(stack.ports).__dataclass_fields__:
        port = getattr(stack.ports, name)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                if name not in skipped:
                    setting = f"{PREFIX}{name.upper()}"
                    raise StackRefused(
                        f"port {port} ({name}) is in use: stop what uses it, or set {setting}"
                    ) from error


def parts(stack: Stack) -> list[Part]:
    """Return the parts in the order in which a reader would start them."""
    made: list[Part] = []
    needs_database: tuple[str, ...] = ()
    if stack.postgres is not None:
        stack.postgres.prepare()
        postgres = stack.postgres
        made.append(
            Part(
                name="postgres",
                command=postgres.command(),
                ready=lambda: asyncio.to_thread(postgres.answers),
                stop_signal=signal.SIGINT,
            )
        )
        needs_database = ("postgres",)
    made.append(_migrate(stack, needs_database))
    if "STRIPE_API_KEY" not in os.environ:
        made.append(_sandbox(stack))
    made += [_server(stack, domain) for domain in DOMAINS]
    made.append(_envoy(stack))
    return made


def _python(*words: str) -> Sequence[str]:
    return (sys.executable, *words)


def _migrate(stack: Stack, needs: tuple[str, ...]) -> Part:
    folder = SecretFolder(stack.folder / "private" / "migrate")
    folder.put("paymesh_admin_database_url", stack.admin_url())
    for name in (*DOMAINS, AUDIT):
        folder.put(f"paymesh_role_password_{name}", stack.secrets.password(f"role_{name}"))

    async def never_asked() -> bool:
        return True

    return Part(
        name="migrate",
        command=_python("-m", "servers", "migrate"),
        ready=never_asked,
        needs=needs,
        env={"PAYMESH_SECRETS_DIR": str(folder.path)},
        once=True,
    )


def _sandbox(stack: Stack) -> Part:
    async def ready() -> bool:
        return await _answers(f"http://127.0.0.1:{stack.ports.stripe_sandbox}/_sandbox/healthz")

    return Part(
        name="stripe-sandbox",
        command=_python("-m", "sandbox.stripe"),
        ready=ready,
        env={
            "PAYMESH_PROFILE": "dev",
            "STRIPE_SANDBOX_PORT": str(stack.ports.stripe_sandbox),
            "STRIPE_SANDBOX_DATA_DIR": str(stack.folder / "stripe-sandbox"),
            "STRIPE_SANDBOX_API_KEY": stack.secrets.prefixed("stripe_api_key", "sk_test_"),
            "STRIPE_SANDBOX_WEBHOOK_URL": f"{stack.edge_url}/webhooks/stripe",
            "STRIPE_SANDBOX_WEBHOOK_SECRET": stack.secrets.prefixed("stripe_webhook", "whsec_"),
            "STRIPE_SANDBOX_WEBHOOK_CA": str(stack.ca_file),
        },
    )


def _server(stack: Stack, domain: str) -> Part:
    folder = SecretFolder(stack.folder / "private" / domain)
    folder.put("paymesh_database_url", stack.database_url(domain, domain))
    folder.put("paymesh_eventlog_url", stack.database_url("eventlog", domain))
    folder.put("paymesh_seal_key", stack.secrets.key(f"seal_{domain}"))
    folder.put("paymesh_page_token_key", stack.secrets.key(f"page_token_{domain}"))
    env = {
        "PAYMESH_PROFILE": "dev",
        "PAYMESH_GRPC_PORT": str(getattr(stack.ports, domain)),
        "PAYMESH_METRICS_PORT": str(getattr(stack.ports, f"metrics_{domain}")),
        "PAYMESH_TLS_DIR": str(stack.mesh_dir(domain)),
        "PAYMESH_PEERS": json.dumps({name: f"127.0.0.1:{getattr(stack.ports, name)}" for name in DOMAINS}),
        "PAYMESH_CRASH_DIR": str(stack.folder / "crash"),
        "PAYMESH_SECRETS_DIR": str(folder.path),
    }
    if domain == "identity":
        folder.put("paymesh_password_pepper", stack.secrets.key("password_pepper"))
        folder.put("paymesh_api_key_pepper", stack.secrets.key("api_key_pepper"))
        env |= {
            "PAYMESH_JWT_ISSUER": stack.edge_url,
            "PAYMESH_JWT_KEYS_DIR": str(stack.folder / "private" / "jwt"),
            "PAYMESH_BCRYPT_COST": str(stack.bcrypt_cost),
        }
    if domain == "payments":
        real = os.environ.get("STRIPE_API_KEY")
        folder.put("paymesh_stripe_api_key", real or stack.secrets.prefixed("stripe_api_key", "sk_test_"))
        webhook = os.environ.get("STRIPE_WEBHOOK_SECRET") or stack.secrets.prefixed("stripe_webhook", "whsec_")
        folder.put("paymesh_stripe_webhook_secrets", webhook)
        env["PAYMESH_FEE_PLAN"] = json.dumps(FEE_PLAN)
        if real is None:
            env["PAYMESH_STRIPE_API_BASE"] = f"http://127.0.0.1:{stack.ports.stripe_sandbox}"
    return Part(
        name=domain,
        command=_python("-m", "servers", domain),
        ready=lambda: healthy(stack, domain),
        needs=("migrate",),
        env=env,
    )


async def healthy(stack: Stack, domain: str) -> bool:
    """Ask a server for its health over mTLS, as the `dev` peer."""
    folder = stack.mesh_dir("dev")
    credentials = grpc.ssl_channel_credentials(
        *((folder / name).read_bytes() for name in ("ca.crt", "tls.key", "tls.crt"))
    )
    options = [("grpc.ssl_target_name_override", f"{domain}.paymesh.internal"), ("grpc.enable_retries", 0)]
    address = f"127.0.0.1:{getattr(stack.ports, domain)}"
    async with grpc.aio.secure_channel(address, credentials, options=options) as channel:
        try:
            answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=1)  # type: ignore[attr-defined]  # its stubs lack the methods
        except grpc.aio.AioRpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _envoy(stack: Stack) -> Part:
    binary = shutil.which("envoy", path=str(Path(sys.executable).parent))
    if binary is None:
        raise StackRefused("the envoy binary is missing: run `make clean` and `make up` again")
    file = stack.folder / "run" / "envoy.yaml"
    file.write_text(
        edge.render(
            edge.EdgeSettings(
                ports=stack.ports,
                run_dir=stack.folder / "run",
                mesh_dir=stack.mesh_dir("edge"),
                issuer=stack.edge_url,
            )
        )
    )
    context = ssl.create_default_context(cafile=str(stack.ca_file))

    async def ready() -> bool:
        stats = f"http://127.0.0.1:{stack.ports.envoy_admin}/clusters"
        return await _answers(f"{stack.edge_url}/healthz", context) and await _all_healthy(stats)

    return Part(
        name="envoy",
        command=(binary, "-c", str(file), "--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warning"),
        ready=ready,
        needs=("identity",),
    )


async def _answers(url: str, verify: ssl.SSLContext | bool = True) -> bool:
    async with httpx.AsyncClient(verify=verify, timeout=1) as client:
        try:
            return (await client.get(url)).status_code == 200
        except httpx.HTTPError:
            return False


async def _all_healthy(url: str) -> bool:
    """Tell whether Envoy has found every server healthy: before that it answers 503."""
    async with httpx.AsyncClient(timeout=1) as client:
        try:
            text = (await client.get(url)).text
        except httpx.HTTPError:
            return False
    flags = [line for line in text.splitlines() if "::health_flags::" in line and line.split("::")[0] in DOMAINS]
    return len(flags) == len(DOMAINS) and all(line.endswith("::healthy") for line in flags)
