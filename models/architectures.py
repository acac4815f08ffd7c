"""Architectures by name: building one, its preprocessing and where it splits; of timm, torchvision and our own."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal

import timm
import torch
import torchvision
from torch import nn

from labelmill.models.classifier_split import SplitClassifier, split_at_pooling, split_timm
from labelmill.models.preprocessing import Preprocessing, triple
from labelmill.models.small_networks import conv4, resnet18_32, wrn_28_2
from labelmill.models.weights import Weights, clean_weights
from labelmill.schemas.errors import BadInput, UnsupportedTeacher, WorkFailed

TORCHVISION_PREFIX = "torchvision/"

Role = Literal["teacher", "student"]
"""What a model is asked for as; errors name the field so."""

_INCEPTIONS = ("googlenet", "inception_v3")
_FIXED_SIZE = ("maxvit_t",)  # those of torchvision that have a map and take only their own input size
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")  # classifiers beside the way, for training only
_SMALL: dict[str, Callable[[int], nn.Module]] = {"wrn_28_2": wrn_28_2, "resnet18_32": resnet18_32, "conv4": conv4}
_SMALL_PREPROCESSING = Preprocessing(
    mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), interpolation="bilinear", native_size=(32, 32)
)


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
        return split_at_pooling(model, self.name)


@dataclass(frozen=True, kw_only=True, slots=True)
class SmallArchitecture:
    """A network for images of 32 pixels; nobody publishes weights for it, so its `tag` is empty."""

    name: str
    tag: str = ""
    preprocessing: Preprocessing = _SMALL_PREPROCESSING
    library: str = f"labelmill {version('labelmill')}"

    def build(self, num_classes: int, keys: Collection[str] = ()) -> nn.Module:
        """Build the model with random weights, in eval mode; `keys` are those of the file to come."""
        return _SMALL[self.name](num_classes).eval()

    def download(self) -> Weights:
        """Raise BadInput: there are no weights to download."""
        raise BadInput(
            f"weights 'pretrained': nobody publishes weights of {self.name!r}; give a .safetensors or .pth file of it"
        )

    def split(self, model: nn.Module) -> SplitClassifier:
        """Split the model where it pools."""
        return split_at_pooling(model, self.name)


Architecture = TimmArchitecture | TorchvisionArchitecture | SmallArchitecture


def find_architecture(name: str, *, role: Role = "teacher") -> Architecture:
    """Return the architecture of a timm name, of `torchvision/NAME` or of a network for 32 pixels.

    Raises BadInput when there is none, UnsupportedTeacher when it does not take images of three channels.
    """
    if name in _SMALL:
        return SmallArchitecture(name=name)
    if name.startswith(TORCHVISION_PREFIX):
        return _find_torchvision(name, role)
    if not timm.is_model(name):
        near = _suggest(name, [*timm.list_models(), *_SMALL])
        raise BadInput(
            f"{role} {name!r}: timm {timm.__version__} has no such model{near}; "
            f"expected a name of timm, {TORCHVISION_PREFIX}NAME, or one of {', '.join(_SMALL)}"
        )
    config = _timm_config(name, role)
    channels, height, width = config.input_size
    if channels != 3:
        raise UnsupportedTeacher(f"{role} {name!r}: expected images of 3 channels, it takes {channels}")
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


def _timm_config(name: str, role: Role) -> Any:  # noqa: ANN401 - timm is not typed
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError:
        config = None
    if config is None:
        tags = ", ".join(timm.list_pretrained(name.partition(".")[0] + ".*")) or "none"
        raise BadInput(f"{role} {name!r}: timm {timm.__version__} has no such weights of it; it has: {tags}")
    return config


def _find_torchvision(name: str, role: Role) -> TorchvisionArchitecture:
    bare = name.removeprefix(TORCHVISION_PREFIX)
    known = torchvision.models.list_models(module=torchvision.models)
    if bare not in known:
        raise BadInput(
            f"{role} {name!r}: torchvision {torchvision.__version__} has no such classifier"
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
