"""The double-entry ledger and the balances that are read from it."""
