"""The gRPC face of wallets and of the ledger: proto in, use case, proto out."""

from servers.wallets.service.ledger import LedgerService
from servers.wallets.service.proofs import ProofService
from servers.wallets.service.wallets import WalletService

__all__ = ["LedgerService", "ProofService", "WalletService"]
