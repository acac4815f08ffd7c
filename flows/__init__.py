"""Composition and parameters of Prefect flows; no algorithm, no file format."""
