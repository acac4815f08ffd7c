"""A classifier with its weights: of a file, an installed package or a library."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from torch import nn

from labelmill.models.architectures import Architecture, Role, TimmArchitecture, build_on_meta
from labelmill.models.preprocessing import Preprocessing
from labelmill.models.trained_weights import TrainedFacts, read_trained_facts
from labelmill.models.weights import PRETRAINED, Weights, WeightsFile, find_weights, read_weights
from labelmill.models.weights_match import FREE_ROWS, load_matched, match_weights
from labelmill.schemas.errors import BadInput

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedClassifier:
    """A classifier in eval mode with as many classes as its weights have.

    `tag` names the published weights whose preprocessing is used; it is empty where the file says it itself: then
    `facts` are what the file says.
    """

    model: nn.Module
    source: str
    matched: str
    tag: str
    preprocessing: Preprocessing
    facts: TrainedFacts | None = None


def load_classifier(architecture: Architecture, weights: str, *, role: Role = "teacher") -> LoadedClassifier:
    """Build a classifier and load its weights: `pretrained`, a file, or `package:NAME`.

    Raises BadInput when there is no such file, when it does not fit the architecture, or when it says that another
    one was trained; WorkFailed when pretrained weights cannot be downloaded.
    """
    if weights != PRETRAINED:
        return _load_file(architecture, find_weights(weights), role)
    if isinstance(architecture, TimmArchitecture):
        return LoadedClassifier(
            model=architecture.build_pretrained(), source=f"{PRETRAINED} {architecture.tag}", matched="by the library",
            tag=architecture.tag, preprocessing=architecture.preprocessing,
        )  # fmt: skip
    return _load_tensors(architecture, architecture.download(), None)


def _load_file(architecture: Architecture, file: WeightsFile, role: Role) -> LoadedClassifier:
    facts = read_trained_facts(file.path)
    if facts is not None and _bare(facts.architecture) != _bare(architecture.name):
        raise BadInput(
            f"{role} {architecture.name!r}: weights {file.source!r} are those of a trained {facts.architecture!r}; "
            f"give {role} {facts.architecture!r}, or other weights"
        )
    return _load_tensors(architecture, read_weights(file), facts)


def _bare(name: str) -> str:
    """Return a name without timm's tag: the pretraining does not make another architecture."""
    return name.partition(".")[0]


def _load_tensors(architecture: Architecture, weights: Weights, facts: TrainedFacts | None) -> LoadedClassifier:
    match = match_weights(weights, build_on_meta(architecture, FREE_ROWS, weights.tensors))
    if match.how == "by order":
        logger.info(
            "%s: its names are not those of %s; its %d tensors fit in their order",
            weights.source,
            architecture.name,
            len(match.file_keys),
        )
    listed = facts.classes if facts else None
    if listed is not None and len(listed) != match.num_classes:
        raise BadInput(
            f"weights {weights.source!r}: expected a class for each of its {match.num_classes} outputs, its header "
            f"lists {len(listed)}; the file was put together from two, train it anew"
        )
    model = architecture.build(match.num_classes, weights.tensors)
    load_matched(model, weights, match)
    entry = f" [{weights.entry}]" if weights.entry else ""
    own = architecture.preprocessing
    return LoadedClassifier(
        model=model,
        source=weights.source + entry,
        matched=match.how,
        tag="" if facts else architecture.tag,
        preprocessing=facts.change_preprocessing(own) if facts else own,
        facts=facts,
    )
