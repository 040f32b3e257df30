"""The servers: one domain a folder, plumbing in `runtime`, pure rules in `kernel`."""
