"""Talking to a Realtime server."""
