"""The flow that goes the whole way: images in, label maps out, and a page to look at."""

from __future__ import annotations

from labelmill.flows.definition import define_flow
from labelmill.flows.ingest import ingest_imagenet
from labelmill.flows.relabel import relabel
from labelmill.schemas.outcomes import Outcome
from labelmill.schemas.parameters import (
    FlowParameters,
    ImagenetPipelineParameters,
    IngestImagenetParameters,
    RelabelParameters,
)
from labelmill.tasks.store import open_store

IMAGES_SHOWN = 48


@define_flow(
    "imagenet-pipeline", ImagenetPipelineParameters, run_name="imagenet-pipeline {dataset} {split} by {teacher}"
)
def imagenet_pipeline(parameters: ImagenetPipelineParameters) -> Outcome:
    """Ingest ImageNet, run a teacher over one split of it and write a page that shows the label maps."""
    from labelmill.tasks.report.page import build_page
    from labelmill.tasks.report.put_page import put_page

    ingest_imagenet(**_fields(parameters, IngestImagenetParameters))
    outcome = relabel(**{**_fields(parameters, RelabelParameters), "workers": 0})  # threads that read are no measure
    assert outcome.table is not None  # noqa: S101 - a relabel makes one
    assert outcome.version is not None  # noqa: S101 - as only a share of one does not
    store = open_store(parameters.store)
    page = build_page(store, outcome.table, version=outcome.version, images=IMAGES_SHOWN)
    report = put_page(page, store.table(outcome.table), outcome.version, report=parameters.report)
    return outcome.model_copy(
        update={"title": f"imagenet-pipeline {parameters.dataset}", "facts": {**outcome.facts, "report": report}}
    )


def _fields(parameters: ImagenetPipelineParameters, model: type[FlowParameters]) -> dict[str, object]:
    """Return the parameters that a step takes; those that only the steps have keep their defaults."""
    return {name: getattr(parameters, name) for name in model.model_fields if hasattr(parameters, name)}
