"""Checks of the selection's parameters, and of the tables that they name, before any work."""

from __future__ import annotations

from labelmill.schemas.errors import BadInput
from labelmill.schemas.parameters import ChooseParameters, DisagreementsParameters, SelectParameters
from labelmill.schemas.pseudo_labels import PSEUDO_LABELS_SCHEMA
from labelmill.schemas.versions import Version
from labelmill.tasks.store import Store, open_store


def check_choose(parameters: ChooseParameters) -> None:
    """Raise BadInput or NotInStore for what can be seen to be wrong without reading rows."""
    store = open_store(parameters.store)
    find_labels(store, parameters)
    if isinstance(parameters, SelectParameters):
        _check_select(store, parameters)
    if isinstance(parameters, DisagreementsParameters):
        if parameters.report is not None and parameters.report.endswith(".csv"):
            raise BadInput(f"report: {parameters.report} would be the CSV beside the page; expected a name in .html")
        store.table(f"{parameters.dataset}.images").version(parameters.images_version)
    table = getattr(parameters, "table", None)
    if table in {"images", "verdicts", parameters.labels_table, getattr(parameters, "relevance_from", None)}:
        raise BadInput(f"table: {table!r} is the name of another table; choose another")


def _check_select(store: Store, parameters: SelectParameters) -> None:
    if parameters.targets == "hard" and parameters.temperature != 1:
        raise BadInput("temperature: hard targets are not sharpened; leave it out, or say --targets soft")
    if parameters.relevant_per_class is not None and parameters.relevant_share is not None:
        raise BadInput("relevant_share: expected this or relevant_per_class, got both")
    if parameters.relevance_version is not None and parameters.relevance_from is None:
        raise BadInput("relevance_version: expected relevance_from, the table that it is a version of")
    if parameters.relevance_from is not None:
        if parameters.relevant_per_class is None and parameters.relevant_share is None:
            raise BadInput("relevance_from: expected how many to keep: relevant_per_class or relevant_share")
        find_relevance(store, parameters)


def find_labels(store: Store, parameters: ChooseParameters) -> Version:
    """Return the version of pseudo labels to choose from; raise BadInput when the table is of another kind."""
    return _find(store, f"{parameters.dataset}.{parameters.labels_table}", parameters.labels_version, "labels_table")


def find_relevance(store: Store, parameters: SelectParameters) -> Version | None:
    """Return the version of pseudo labels that says how relevant images are, None when all are."""
    if parameters.relevant_per_class is None and parameters.relevant_share is None:
        return None
    if parameters.relevance_from is None:
        return find_labels(store, parameters)
    name = f"{parameters.dataset}.{parameters.relevance_from}"
    return _find(store, name, parameters.relevance_version, "relevance_from")


def _find(store: Store, name: str, number: int | None, field: str) -> Version:
    version = store.table(name).version(number)
    lacking = set(PSEUDO_LABELS_SCHEMA.names) - {column.name for column in version.columns}
    if lacking:
        raise BadInput(f"{field}: {name} is no table of pseudo labels: it lacks {', '.join(sorted(lacking))}")
    return version
