"""Versioned tables of immutable Parquet parts in a folder; see docs/store.md for the layout and the protocol."""

from labelmill.tasks.store.store import Store, open_store
from labelmill.tasks.store.table import Change, Table

__all__ = ["Change", "Store", "Table", "open_store"]
