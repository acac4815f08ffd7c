"""Teachers: classifiers by name, with their weights, preprocessing and class list, that give dense logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from labelmill.models.architectures import find_architecture
from labelmill.models.dense_head import PROBE_SIZE, DenseClassifier, HeadKind, make_dense
from labelmill.models.known_classes import read_teacher_classes
from labelmill.models.load_classifier import LoadedClassifier, load_classifier
from labelmill.models.preprocessing import Preprocessing
from labelmill.models.weights import PRETRAINED
from labelmill.models.weights_match import digest_weights
from labelmill.schemas.classes import ClassList
from labelmill.schemas.errors import BadInput
from labelmill.schemas.versions import digest_json


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Teacher:
    """A classifier made fully convolutional; in eval mode, float32, without gradients.

    `model` takes normalised images (B, 3, H, W) and gives dense logits (B, C, h, w). `head` is "linear" where the
    mean of the dense logits is the classifier's own logits, and "per cell" where a norm, an activation or another
    pooling stands between. `digest` names what the labels depend on: weights, architecture, preprocessing, classes.
    """

    name: str
    library: str  # with its version
    tag: str  # the published weights whose preprocessing is used; "" where the file itself says it
    model: DenseClassifier
    classifier: nn.Module
    num_classes: int
    classes: ClassList | None
    head: HeadKind
    preprocessing: Preprocessing
    weights_source: str
    weights_matched: str
    weights_digest: str
    digest: str

    @torch.no_grad()
    def classifier_logits(self, images: torch.Tensor) -> torch.Tensor:
        """Return the ordinary classifier's logits (B, C) of normalised images (B, 3, H, W)."""
        logits: torch.Tensor = self.classifier(images)
        return logits

    @torch.no_grad()
    def map_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) in cells of the map of an input of that size in pixels, by trying one.

        Raises BadInput when the teacher does not take that size.
        """
        parameter = next(self.model.parameters())
        try:
            logits = self.model(torch.zeros((1, 3, height, width), dtype=parameter.dtype, device=parameter.device))
        except (RuntimeError, AssertionError, ValueError) as error:
            native = "x".join(map(str, self.preprocessing.native_size))
            raise BadInput(
                f"input size {height}x{width}: teacher {self.name!r} does not take it ({error}); its own is {native}"
            ) from error
        rows, columns = logits.shape[2:]
        return rows, columns

    def facts(self) -> dict[str, Any]:
        """Return what lineage records, as JSON takes it."""
        return {
            "name": self.name,
            "library": self.library,
            "tag": self.tag,
            "num_classes": self.num_classes,
            "head": self.head,
            "preprocessing": self.preprocessing.facts(),
            "weights": self.weights_source,
            "weights_matched": self.weights_matched,
            "weights_digest": self.weights_digest,
            "classes": self.classes.source if self.classes else None,
            "classes_digest": self.classes.digest() if self.classes else None,
            "digest": self.digest,
        }


def load_teacher(name: str, *, weights: str = PRETRAINED, classes: str = "auto") -> Teacher:
    """Build the classifier `name`, load its weights and make it fully convolutional.

    `name` is a model of timm (`tf_efficientnet_lite0`, `resnet50.a1_in1k`), `torchvision/NAME`, or wrn_28_2,
    resnet18_32 or conv4. `weights` is a .safetensors, .pth or .pt file, `package:DIST` for the one such file in an
    installed package, or `pretrained`; the class count is the file's. `classes` is auto, imagenet-1k, none or a text
    file (see read_teacher_classes). A file that was trained here says its preprocessing and its classes itself.

    Raises BadInput for a name, file or class list that is not what was expected, UnsupportedTeacher for a model
    without a map of features before its head, WorkFailed when pretrained weights cannot be downloaded.
    """
    architecture = find_architecture(name)
    loaded = load_classifier(architecture, weights)
    model = loaded.model.eval().float().requires_grad_(False)
    preprocessing = loaded.preprocessing
    dense = make_dense(
        architecture.split(model), name, preprocessing.native_size if preprocessing.fixed_size else PROBE_SIZE
    )
    class_list = _list_classes(loaded, classes, dense.num_classes)
    weights_digest = digest_weights(model)
    return Teacher(
        name=name,
        library=architecture.library,
        tag=loaded.tag,
        model=dense,
        classifier=model,
        num_classes=dense.num_classes,
        classes=class_list,
        head=dense.head_kind,
        preprocessing=preprocessing,
        weights_source=loaded.source,
        weights_matched=loaded.matched,
        weights_digest=weights_digest,
        digest=digest_json(
            {
                "architecture": [architecture.library.split()[0], name.partition(".")[0]],
                "weights": weights_digest,
                "preprocessing": preprocessing.facts(),
                "classes": class_list.digest() if class_list else None,
            }
        ),
    )


def _list_classes(loaded: LoadedClassifier, classes: str, num_classes: int) -> ClassList | None:
    if loaded.facts is not None and classes == "auto":
        return loaded.facts.classes  # None where its dataset had no list: nothing is to be inferred
    return read_teacher_classes(classes, num_classes)
