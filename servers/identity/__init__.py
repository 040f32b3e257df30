"""Users, sessions, merchants, API keys."""
