"""The page of a label maps version: complete, escaped, self-contained, whatever its images and classes are called."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

import labelmill
from labelmill.cli import main
from labelmill.schemas.errors import BadInput, NotInStore
from labelmill.tasks.report.cards import PageCrop, pool_cells
from labelmill.tasks.report.page import PageTable, build_page
from labelmill.tasks.report.page_rows import choose_rows
from labelmill.tasks.report.pictures import COLOURS, OPACITY_MAX, draw_heat, draw_leaders

TABLE = "imagenet.label_maps"
HOSTILE_CLASS = "</style><script>alert('class')</script> & \"co\", other"
HOSTILE_FILE = "n01443537/<img src=x onerror=alert(1)> '\"&amp;.JPEG"
REJECTED = "n01443537/broken.JPEG"
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Reads a page: fails on tags that do not nest, keeps tags, attributes and text."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.attributes, self.headings, self.text = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)
        if tag == "h2":
            self.headings.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if self.open[-1:] == ["h2"]:
            self.headings[-1] += data


@pytest.fixture(scope="module")
def folder(tmp_path_factory, make_images, ingest, relabel, tiny_teacher):
    """A store of ten images at 2x3 cells, one rejected, one with a hostile name, under classes with hostile names."""
    folder = tmp_path_factory.mktemp("page")
    source = make_images(folder / "train", {"n01443537": 4, "n01484850": 4})
    (source / HOSTILE_FILE).write_bytes((source / "n01443537" / "n01443537_0.JPEG").read_bytes())
    (source / REJECTED).write_bytes(b"")
    classes = folder / "classes.txt"
    classes.write_text("".join(f"{wnid}\t{HOSTILE_CLASS} {wnid}\n" for wnid in tiny_teacher.wnids))
    ingest(source, folder / "store")
    relabel(folder / "store", classes=str(classes))
    return folder


@pytest.fixture(scope="module")
def store(folder):
    return labelmill.open_store(folder / "store")


def all_ids(store):
    with store.connect() as sql:
        return [row[0] for row in sql.execute(f"SELECT image_id FROM {TABLE}").fetchall()]


def test_build_page_shows_every_image_once_and_is_valid(store):
    page = Page(build_page(store, TABLE))
    assert sorted(page.headings) == sorted(all_ids(store))
    assert page.tags.count("article") == 10
    text = "".join(page.text)
    assert all(text.count(image_id) == 1 for image_id in all_ids(store))


def test_build_page_hostile_names_stay_text(store):
    crops = {HOSTILE_FILE: [PageCrop(box=(0.0, 0.0, 0.5, 1.0), content="<b>hostile</b>")]}
    table = PageTable(caption="<em>", header=("<u>",), rows=[("<s>",)], note="<q>")
    page = Page(build_page(store, TABLE, title="<h6>", crops=crops, tables=[table]))
    assert not {"script", "u", "s", "q", "h6"} & set(page.tags)
    assert not any(name.startswith("on") for name, _ in page.attributes)
    text = "".join(page.text)
    for said in ("<b>hostile</b>", "<em>", "<u>", "<s>", "<q>", "<h6>", "</style><script>alert('class')</script>"):
        assert said in text
    assert page.tags.count("style") == 1


def test_build_page_needs_no_network(store):
    text = build_page(store, TABLE)
    sources = [value for name, value in Page(text).attributes if name in {"src", "href"}]
    assert sources
    assert all(source.startswith("data:image/") for source in sources)
    assert set(re.findall(r"url\('?([a-z]+):", text)) == {"data"}
    assert not re.search(r"https?://|@import", text)


def test_build_page_rejected_image_is_shown_with_its_reason(store):
    text = build_page(store, TABLE)
    card = text[text.index(REJECTED) :]
    assert "<b>empty</b>" in card[:400]
    assert "the file has no bytes" in card[:400]
    assert REJECTED in Page(text).headings[-1]


def test_build_page_crops_show_what_is_in_them_and_where(store):
    crops = {HOSTILE_FILE: [PageCrop(box=(0.25, 0.0, 0.75, 0.5), content="half a thing")]}
    text = build_page(store, TABLE, crops=crops)
    assert "left: 25.00%; top: 0.00%; width: 50.00%; height: 50.00%" in text
    assert "background-size: 200.00% 200.00%; background-position: 50.00% 0.00%" in text
    assert text.count("half a thing") == 1


def test_build_page_file_that_changed_or_is_gone_is_not_shown_but_its_map_is(folder, store, tmp_path):
    moved = tmp_path / "moved"
    for image_id in all_ids(store):
        (moved / image_id).parent.mkdir(parents=True, exist_ok=True)
        (moved / image_id).write_bytes((folder / "train" / image_id).read_bytes())
    assert "no photo" not in build_page(store, TABLE, image_root=moved)
    (moved / "n01484850" / "n01484850_0.JPEG").unlink()
    (moved / "n01484850" / "n01484850_1.JPEG").write_bytes(b"other")
    text = build_page(store, TABLE, image_root=moved)
    assert text.count("no photo: missing") == 1
    assert text.count("no photo: the file has changed since it was ingested") == 1
    assert Page(text).tags.count("article") == 10
    assert text.count("the likeliest of these classes") == 9


@pytest.mark.parametrize("count", [1, 4, 9, 10, 100])
def test_choose_rows_shows_as_many_as_asked_for_and_no_row_twice(store, count):
    done, rejected = choose_rows(store, store.table(TABLE).version(), count)
    assert len(done) + len(rejected) == min(count, 10)
    assert len({*done, *rejected}) == min(count, 10)
    assert len(rejected) == (1 if count >= 4 else 0)


def test_build_page_wrong_requests_are_refused(store):
    with pytest.raises(BadInput, match="images: expected 1 or more, got 0"):
        build_page(store, TABLE, images=0)
    with pytest.raises(BadInput, match="expected a table of label maps"):
        build_page(store, "imagenet.images")
    with pytest.raises(NotInStore):
        build_page(store, "imagenet.nothing")


def test_pool_cells_is_the_label_of_a_crop_of_just_that_cell(store):
    maps = labelmill.LabelMaps(store, TABLE)
    assert maps.metadata.grid == (2, 3)
    row = int(maps.rows_of([HOSTILE_FILE])[0])
    cells = pool_cells(maps, row, [5, 1])
    assert cells.shape == (2, 2, 3)
    box = torch.tensor([[2 / 3, 0.5, 1.0, 1.0]])  # the right lower cell
    label = maps.pool(torch.tensor([row]), box)[0]
    np.testing.assert_allclose(cells[:, 1, 2], label[[5, 1]], atol=1e-6)


def picture_of(uri):
    data = base64.b64decode(uri.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(data)))


def test_draw_heat_has_a_pixel_a_cell_and_more_opacity_for_more_probability():
    cells = picture_of(draw_heat(np.array([[0, 0.5, 1]], dtype=np.float32), COLOURS[0]))
    assert cells.shape == (1, 3, 4)
    assert cells[0, :, 3].tolist() == [0, round(255 * OPACITY_MAX / 2), round(255 * OPACITY_MAX)]
    assert cells[0, 1, :3].tolist() == list(COLOURS[0])


def test_draw_leaders_colours_each_cell_by_its_likeliest_class():
    probabilities = np.array([[[0.9, 0.1]], [[0.1, 0.6]]], dtype=np.float32)
    cells = picture_of(draw_leaders(probabilities, COLOURS[:2]))
    assert cells[0, :, :3].tolist() == [list(COLOURS[0]), list(COLOURS[1])]


def test_page_command_writes_the_page(folder, tmp_path, capsys):
    out = tmp_path / "new" / "page.html"
    with pytest.raises(SystemExit) as ended:
        main(["page", str(folder / "store"), TABLE, "--out", str(out), "--images", "3"])
    assert ended.value.code == 0
    assert str(out) in capsys.readouterr().out
    assert Page(out.read_text()).tags.count("article") == 3
