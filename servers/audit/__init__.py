"""The proof of the books: SQL only, imports no domain, reads with one read-only role per database."""
