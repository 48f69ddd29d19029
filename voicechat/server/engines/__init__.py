"""Ears, mind and voice: what hears, thinks and speaks behind the local server."""
