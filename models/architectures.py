"""Architectures by name: building one, its preprocessing and where it splits, for timm and torchvision."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import timm
import torch
import torchvision
from torch import nn

from labelmill.models.classifier_split import SplitClassifier, split_timm, split_torchvision
from labelmill.models.preprocessing import Preprocessing, triple
from labelmill.models.weights import Weights, clean_weights
from labelmill.schemas.errors import BadInput, UnsupportedTeacher, WorkFailed

TORCHVISION_PREFIX = "torchvision/"

_INCEPTIONS = ("googlenet", "inception_v3")
_FIXED_SIZE = ("maxvit_t",)  # those of torchvision that have a map and take only their own input size
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")  # classifiers beside the way, for training only


@dataclass(frozen=True, kw_only=True, slots=True)
class TimmArchitecture:
    """A model of timm; `tag` is the pretraining whose preprocessing counts, such as a1_in1k."""

    name: str
    tag: str
    preprocessing: Preprocessing
    library: str = f"timm {timm.__version__}"

    def build(self, num_classes: int, keys: Collection[str] = ()) -> nn.Module:
        """Build the model with random weights, in eval mode; `keys` are those of the file to come."""
        model: nn.Module = timm.create_model(self.name, num_classes=num_classes)
        return model.eval()

    def build_pretrained(self) -> nn.Module:
        """Build the model with the weights that timm downloads; raise WorkFailed when it cannot."""
        try:
            model: nn.Module = timm.create_model(self.name, pretrained=True)
        except Exception as error:
            # the hub's client raises its own, its HTTP library's and the system's errors
            raise WorkFailed(_no_download(self.name, error)) from error
        return model.eval()

    def split(self, model: nn.Module) -> SplitClassifier:
        """Split the model where it pools."""
        return split_timm(model, self.name)


@dataclass(frozen=True, kw_only=True, slots=True)
class TorchvisionArchitecture:
    """A classifier of torchvision; `tag` is the set of weights whose preprocessing counts, such as IMAGENET1K_V2."""

    name: str
    tag: str
    preprocessing: Preprocessing
    library: str = f"torchvision {torchvision.__version__}"

    def build(self, num_classes: int, keys: Collection[str] = ()) -> nn.Module:
        """Build the model with random weights, in eval mode; `keys` are those of the file to come."""
        options: dict[str, Any] = {}
        bare = self.name.removeprefix(TORCHVISION_PREFIX)
        if bare in _INCEPTIONS:
            # published weights expect inputs in [-1, 1] and convert them from the usual mean and std themselves
            has_aux = any(key.startswith(_AUXILIARY) for key in keys)
            options = {"aux_logits": has_aux, "transform_input": True, "init_weights": False}
        model: nn.Module = torchvision.models.get_model(bare, weights=None, num_classes=num_classes, **options)
        return model.eval()

    def download(self) -> Weights:
        """Return the weights that torchvision downloads; raise WorkFailed when it cannot."""
        published = torchvision.models.get_model_weights(self.name.removeprefix(TORCHVISION_PREFIX))[self.tag]
        try:
            state = published.get_state_dict(progress=False, check_hash=True, weights_only=True)
        except (OSError, RuntimeError) as error:
            raise WorkFailed(_no_download(self.name, error)) from error
        return clean_weights(state, f"{self.name} {self.tag}")

    def split(self, model: nn.Module) -> SplitClassifier:
        """Split the model where it pools."""
        return split_torchvision(model, self.name)


Architecture = TimmArchitecture | TorchvisionArchitecture


def find_architecture(name: str) -> Architecture:
    """Return the architecture of a timm name, or of `torchvision/NAME`; raise BadInput when there is none."""
    if name.startswith(TORCHVISION_PREFIX):
        return _find_torchvision(name)
    if not timm.is_model(name):
        raise BadInput(
            f"teacher {name!r}: timm {timm.__version__} has no such model{_suggest(name, timm.list_models())}; "
            f"expected a name of timm, or {TORCHVISION_PREFIX}NAME"
        )
    config = _timm_config(name)
    channels, height, width = config.input_size
    if channels != 3:
        raise UnsupportedTeacher(f"teacher {name!r}: expected images of 3 channels, it takes {channels}")
    return TimmArchitecture(
        name=name,
        tag=config.tag or "",
        preprocessing=Preprocessing(
            mean=triple(config.mean),
            std=triple(config.std),
            interpolation=config.interpolation,
            native_size=(height, width),
            fixed_size=bool(config.fixed_input_size),
        ),
    )


def _timm_config(name: str) -> Any:  # noqa: ANN401 - timm is not typed
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError:
        config = None
    if config is None:
        tags = ", ".join(timm.list_pretrained(name.partition(".")[0] + ".*")) or "none"
        raise BadInput(f"teacher {name!r}: timm {timm.__version__} has no such weights of it; it has: {tags}")
    return config


def _find_torchvision(name: str) -> TorchvisionArchitecture:
    bare = name.removeprefix(TORCHVISION_PREFIX)
    known = torchvision.models.list_models(module=torchvision.models)
    if bare not in known:
        raise BadInput(
            f"teacher {name!r}: torchvision {torchvision.__version__} has no such classifier"
            f"{_suggest(bare, known)}; expected {TORCHVISION_PREFIX}NAME, or a name of timm"
        )
    published = torchvision.models.get_model_weights(bare).DEFAULT
    preset = published.transforms()
    size = preset.crop_size[0]
    return TorchvisionArchitecture(
        name=name,
        tag=published.name,
        preprocessing=Preprocessing(
            mean=triple(preset.mean),
            std=triple(preset.std),
            interpolation=preset.interpolation.value,
            native_size=(size, size),
            fixed_size=bare in _FIXED_SIZE,
        ),
    )


def build_on_meta(architecture: Architecture, num_classes: int, keys: Collection[str]) -> nn.Module:
    """Build a model for its keys and shapes only, without memory where the library can."""
    try:
        with torch.device("meta"):
            return architecture.build(num_classes, keys)
    except (RuntimeError, NotImplementedError):
        return architecture.build(num_classes, keys)  # some compute with values while they are built


def _suggest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name.partition(".")[0], known, n=3)
    return f" (near: {', '.join(near)})" if near else ""


def _no_download(name: str, error: Exception) -> str:
    first = next(iter(str(error).splitlines()), "")
    return (
        f"weights 'pretrained': the weights of {name!r} could not be downloaded ({type(error).__name__}: {first}); "
        "give a .safetensors or .pth file, or package:NAME"
    )
