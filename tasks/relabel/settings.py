"""What decides the bytes of a label map, besides the image and the teacher."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from labelmill.models.fast_forward import Precision
from labelmill.models.label_encoding import ENCODING_REVISION, LOGIT_STEP
from labelmill.models.label_pooling import ABSENT_SHARE
from labelmill.models.preprocessing import Preprocessing
from labelmill.tasks.relabel.load import Loading, Resizer


@dataclass(frozen=True, kw_only=True, slots=True)
class RelabelSettings:
    """Parameters of the arithmetic; `workers` is not among them, it changes no byte.

    input_size: (height, width) in pixels. max_pixels bounds an image's area before it is decoded.
    """

    input_size: tuple[int, int]
    top_k: int
    batch_size: int
    max_pixels: int
    precision: Precision = "fp32"
    resizer: Resizer = "pillow"
    scaled_decoding: bool = False
    logit_step: float = LOGIT_STEP
    absent_share: float = ABSENT_SHARE

    def loading(self, preprocessing: Preprocessing, size: tuple[int, int] | None = None) -> Loading:
        """Return how images are loaded for a teacher with this preprocessing, at the input size or another."""
        return Loading(
            size=size or self.input_size,
            interpolation=preprocessing.interpolation,
            max_pixels=self.max_pixels,
            resizer=self.resizer,
            scaled_decoding=self.scaled_decoding,
        )

    def facts(self) -> dict[str, Any]:
        """Return these settings and the numerics under them, for receipts and lineage."""
        revision = {"encoding": ENCODING_REVISION, "numerics": numerics()}
        return {**asdict(self), "input_size": list(self.input_size), **revision}


def numerics() -> dict[str, str]:
    """Return what else may change a last bit: libraries and processor architecture."""
    return {
        "torch": version("torch"),
        "torchvision": version("torchvision"),
        "pillow": version("pillow"),
        "numpy": version("numpy"),
        "machine": platform.machine(),
    }
