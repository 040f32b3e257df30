"""Stand-ins for outside providers. They import nothing of ours."""
