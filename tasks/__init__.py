"""The work: plain functions with typed arguments, each runs without Prefect."""
