"""Hearing and being heard."""
