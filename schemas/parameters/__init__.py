"""Parameters of the flows: one model each, which is also the command line's options and Prefect's form."""

from labelmill.schemas.parameters.anchors import AnchorsParameters, parse_sizes, parse_strides, parse_sweep
from labelmill.schemas.parameters.annotated import (
    IngestBoxesParameters,
    IngestCocoParameters,
    IngestTableParameters,
    IngestVocParameters,
    IngestYoloParameters,
)
from labelmill.schemas.parameters.augment import AugmentParameters
from labelmill.schemas.parameters.demo import DemoParameters
from labelmill.schemas.parameters.export import ExportParameters
from labelmill.schemas.parameters.extract import ExtractParameters
from labelmill.schemas.parameters.fields import (
    FILE_BYTES_MAX,
    PIXELS_MAX,
    Device,
    FlowParameters,
    InputSize,
    LocalPath,
    Location,
    Share,
    TableName,
    WeightsName,
    parse_device,
    parse_input_size,
    parse_share,
)
from labelmill.schemas.parameters.ingest import (
    IngestFolderParameters,
    IngestImagenetParameters,
    IngestParameters,
    IngestSettings,
)
from labelmill.schemas.parameters.label_map_files import ExportLabelMapsParameters, ImportLabelMapsParameters
from labelmill.schemas.parameters.lsun import SPLIT_BY_NAME, IngestLsunParameters
from labelmill.schemas.parameters.pseudolabel import PseudolabelParameters, parse_further_teachers
from labelmill.schemas.parameters.relabel import ImagenetPipelineParameters, RelabelParameters, TeacherParameters
from labelmill.schemas.parameters.rename import RenameParameters
from labelmill.schemas.parameters.selection import (
    ChooseParameters,
    DisagreementsParameters,
    PseudoReportParameters,
    SelectParameters,
    VerdictsParameters,
)
from labelmill.schemas.parameters.small_images import IngestCifarParameters, IngestSvhnParameters
from labelmill.schemas.parameters.splits import (
    DivideParameters,
    DomainsParameters,
    EpisodesParameters,
    FindLeaksParameters,
    SplitParameters,
)
from labelmill.schemas.parameters.statistics import StatisticsParameters
from labelmill.schemas.parameters.train import TrainParameters

__all__ = [
    "FILE_BYTES_MAX",
    "PIXELS_MAX",
    "SPLIT_BY_NAME",
    "AnchorsParameters",
    "AugmentParameters",
    "ChooseParameters",
    "DemoParameters",
    "Device",
    "DisagreementsParameters",
    "DivideParameters",
    "DomainsParameters",
    "EpisodesParameters",
    "ExportLabelMapsParameters",
    "ExportParameters",
    "ExtractParameters",
    "FindLeaksParameters",
    "FlowParameters",
    "ImagenetPipelineParameters",
    "ImportLabelMapsParameters",
    "IngestBoxesParameters",
    "IngestCifarParameters",
    "IngestCocoParameters",
    "IngestFolderParameters",
    "IngestImagenetParameters",
    "IngestLsunParameters",
    "IngestParameters",
    "IngestSettings",
    "IngestSvhnParameters",
    "IngestTableParameters",
    "IngestVocParameters",
    "IngestYoloParameters",
    "InputSize",
    "LocalPath",
    "Location",
    "PseudoReportParameters",
    "PseudolabelParameters",
    "RelabelParameters",
    "RenameParameters",
    "SelectParameters",
    "Share",
    "SplitParameters",
    "StatisticsParameters",
    "TableName",
    "TeacherParameters",
    "TrainParameters",
    "VerdictsParameters",
    "WeightsName",
    "parse_device",
    "parse_further_teachers",
    "parse_input_size",
    "parse_share",
    "parse_sizes",
    "parse_strides",
    "parse_sweep",
]
