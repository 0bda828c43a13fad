"""Checks and generators of the repository; each runs as ``python -m scripts.NAME`` from the repository root."""
