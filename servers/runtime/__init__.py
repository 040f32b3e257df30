"""The plumbing of all servers, once. Knows no domain."""
