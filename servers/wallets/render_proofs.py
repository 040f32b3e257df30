"""Proofs and roots as messages."""

from __future__ import annotations

from paymesh.wallets.v1 import proofs_pb2

from servers.runtime.render import stamp
from servers.wallets.chain import Proof, Root


def render_root(root: Root) -> proofs_pb2.LedgerRoot:
    """Return a published root as a message."""
    return proofs_pb2.LedgerRoot(
        shard=root.shard,
        start_time=stamp(root.start_time),
        end_time=stamp(root.end_time),
        first_batch=root.first_number,
        last_batch=root.last_number,
        root=root.root.hex(),
        object=root.object,
        publish_time=stamp(root.publish_time),
    )


def render_proof(proof: Proof, *, next_page_token: str) -> proofs_pb2.LedgerProof:
    """Return a proof as a message; hashes are hexadecimal."""
    message = proofs_pb2.LedgerProof(
        root=render_root(proof.root), account_id=proof.account_id, next_page_token=next_page_token
    )
    for batch, path in proof.batches:
        message.batches.add(number=batch.number, header=batch.header, path=[step.hex() for step in path])
    for line in proof.lines:
        message.lines.add(batch=line.batch, index=line.index, leaf=line.leaf, path=[step.hex() for step in line.path])
    return message
