"""The flows by name, without importing them: listing must not cost Prefect's and torch's imports."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from labelmill.schemas.outcomes import Outcome
from labelmill.schemas.parameters import (
    AnchorsParameters,
    AugmentParameters,
    DisagreementsParameters,
    DomainsParameters,
    EpisodesParameters,
    ExportLabelMapsParameters,
    ExportParameters,
    ExtractParameters,
    FindLeaksParameters,
    FlowParameters,
    ImagenetPipelineParameters,
    ImportLabelMapsParameters,
    IngestCifarParameters,
    IngestCocoParameters,
    IngestFolderParameters,
    IngestImagenetParameters,
    IngestLsunParameters,
    IngestSvhnParameters,
    IngestTableParameters,
    IngestVocParameters,
    IngestYoloParameters,
    PseudolabelParameters,
    PseudoReportParameters,
    RelabelParameters,
    RenameParameters,
    SelectParameters,
    SplitParameters,
    StatisticsParameters,
    TrainParameters,
    VerdictsParameters,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class FlowEntry:
    """A flow's parameter model and where its function is."""

    parameters: type[FlowParameters]
    module: str
    function: str

    def load(self) -> Callable[..., Outcome]:
        """Import the Prefect flow."""
        return cast("Callable[..., Outcome]", getattr(importlib.import_module(self.module), self.function))


FLOWS = {
    "ingest-imagenet": FlowEntry(
        parameters=IngestImagenetParameters, module="labelmill.flows.ingest", function="ingest_imagenet"
    ),
    "ingest-folder": FlowEntry(
        parameters=IngestFolderParameters, module="labelmill.flows.ingest", function="ingest_folder"
    ),
    "extract": FlowEntry(parameters=ExtractParameters, module="labelmill.flows.extract", function="extract"),
    "ingest-lsun": FlowEntry(
        parameters=IngestLsunParameters, module="labelmill.flows.ingest_lsun", function="ingest_lsun"
    ),
    "ingest-cifar": FlowEntry(
        parameters=IngestCifarParameters, module="labelmill.flows.ingest_small_images", function="ingest_cifar"
    ),
    "ingest-svhn": FlowEntry(
        parameters=IngestSvhnParameters, module="labelmill.flows.ingest_small_images", function="ingest_svhn"
    ),
    "ingest-coco": FlowEntry(parameters=IngestCocoParameters, module="labelmill.flows.boxes", function="ingest_coco"),
    "ingest-yolo": FlowEntry(parameters=IngestYoloParameters, module="labelmill.flows.boxes", function="ingest_yolo"),
    "ingest-voc": FlowEntry(parameters=IngestVocParameters, module="labelmill.flows.boxes", function="ingest_voc"),
    "ingest-table": FlowEntry(
        parameters=IngestTableParameters, module="labelmill.flows.ingest", function="ingest_table"
    ),
    "relabel": FlowEntry(parameters=RelabelParameters, module="labelmill.flows.relabel", function="relabel"),
    "pseudolabel": FlowEntry(
        parameters=PseudolabelParameters, module="labelmill.flows.pseudolabel", function="pseudolabel"
    ),
    "imagenet-pipeline": FlowEntry(
        parameters=ImagenetPipelineParameters, module="labelmill.flows.pipeline", function="imagenet_pipeline"
    ),
    "import-label-maps": FlowEntry(
        parameters=ImportLabelMapsParameters, module="labelmill.flows.label_map_files", function="import_label_maps"
    ),
    "export-label-maps": FlowEntry(
        parameters=ExportLabelMapsParameters, module="labelmill.flows.label_map_files", function="export_label_maps"
    ),
    "export": FlowEntry(parameters=ExportParameters, module="labelmill.flows.export", function="export"),
    "rename": FlowEntry(parameters=RenameParameters, module="labelmill.flows.rename", function="rename"),
    "split": FlowEntry(parameters=SplitParameters, module="labelmill.flows.splits", function="split"),
    "episodes": FlowEntry(parameters=EpisodesParameters, module="labelmill.flows.splits", function="episodes"),
    "domains": FlowEntry(parameters=DomainsParameters, module="labelmill.flows.splits", function="domains"),
    "find-leaks": FlowEntry(parameters=FindLeaksParameters, module="labelmill.flows.splits", function="find_leaks"),
    "statistics": FlowEntry(
        parameters=StatisticsParameters, module="labelmill.flows.statistics", function="statistics"
    ),
    "augment": FlowEntry(parameters=AugmentParameters, module="labelmill.flows.augment", function="augment"),
    "train": FlowEntry(parameters=TrainParameters, module="labelmill.flows.train", function="train"),
    "select": FlowEntry(parameters=SelectParameters, module="labelmill.flows.selection", function="select"),
    "pseudo-report": FlowEntry(
        parameters=PseudoReportParameters, module="labelmill.flows.selection", function="pseudo_report"
    ),
    "disagreements": FlowEntry(
        parameters=DisagreementsParameters, module="labelmill.flows.review", function="disagreements"
    ),
    "verdicts": FlowEntry(parameters=VerdictsParameters, module="labelmill.flows.review", function="verdicts"),
    "anchors": FlowEntry(parameters=AnchorsParameters, module="labelmill.flows.anchors", function="anchors"),
}
