"""Datasets written out for other tools."""
