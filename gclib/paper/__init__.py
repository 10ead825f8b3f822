"""The paper's tables and claims as data, and the ledger that sets ours beside them."""
