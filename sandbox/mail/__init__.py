"""A mail server for laptops and tests: it takes every mail, delivers none, and shows them on a page."""
