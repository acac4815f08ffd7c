"""Splits are decided by seed and image, keep together what belongs together, and tell what stands on both sides."""

from collections import Counter, defaultdict
from fractions import Fraction
from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from labelmill.schemas.errors import BadInput, NotInStore
from labelmill.schemas.parameters import (
    DomainsParameters,
    EpisodesParameters,
    FindLeaksParameters,
    IngestFolderParameters,
    SplitParameters,
)
from labelmill.schemas.splits import parse_fractions
from labelmill.tasks.ingest.job import commit_ingest, ingest_chunk, prepare_folder
from labelmill.tasks.splits.domains import write_domains
from labelmill.tasks.splits.draw import Unit, draw, most_common, split_by_quota, split_by_threshold
from labelmill.tasks.splits.episodes import draw_episodes
from labelmill.tasks.splits.leaks import find_leaks
from labelmill.tasks.splits.split import divide
from labelmill.tasks.store import open_store

DRAWN = 4538425081878975289

FRACTIONS = {"train": Fraction(7, 10), "val": Fraction(1, 10), "test": Fraction(2, 10)}


@settings(deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=80), st.integers(0, 5))
def test_split_by_quota_every_stratum_is_divided_within_one_image(strata, seed):
    units = [Unit(name=str(place), rows=(place,), stratum=stratum) for place, stratum in enumerate(strata)]
    splits = split_by_quota(units, FRACTIONS, seed)
    for stratum, size in Counter(strata).items():
        found = Counter(split for split, unit in zip(splits, units, strict=True) if unit.stratum == stratum)
        for name, fraction in FRACTIONS.items():
            assert abs(found[name] - fraction * size) < 1


@settings(deadline=None)
@given(st.sets(st.text(min_size=1), min_size=2), st.integers(0, 5))
def test_split_by_threshold_units_that_come_and_go_move_no_other(names, seed):
    units = [Unit(name=name, rows=(0,), stratum=None) for name in sorted(names)]
    splits = split_by_threshold(units, FRACTIONS, seed)
    assert split_by_threshold(units[1:], FRACTIONS, seed) == splits[1:]
    assert split_by_threshold(units[::-1], FRACTIONS, seed) == splits[::-1]


def test_split_by_threshold_many_units_meet_the_fractions():
    units = [Unit(name=f"{number}.jpg", rows=(number,), stratum=None) for number in range(20_000)]
    found = Counter(split_by_threshold(units, FRACTIONS, 0))
    for name, fraction in FRACTIONS.items():
        assert abs(found[name] / 20_000 - fraction) < 0.012  # beyond three deviations


def test_draw_is_the_same_on_every_machine():
    assert draw("split", 0, "n01440764/tench.JPEG") == DRAWN
    assert draw("a", "b") != draw("ab")


def test_most_common_prefers_many_then_small():
    assert [most_common(values) for values in ([1, 2, 2], [3, 1], [None, None, 4], [None, 4])] == [2, 1, None, 4]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train=0.8,val=0.1", "sum to 1, got 0.9"),
        ("train=0.8,train=0.2", "distinct names"),
        ("train", "such as train=0.8"),
        ("train=1,val=0", "above 0 for val"),
        ("train=x", "a number for train"),
        ("train=1/0", "a number for train"),
        ("a b=1", "distinct names"),
        ("", "such as"),
    ],
)
def test_parse_fractions_refuses_what_is_no_division(text, words):
    with pytest.raises(BadInput, match=words):
        parse_fractions(text)


def test_parse_fractions_thirds_and_tenths_are_exact():
    assert sum(parse_fractions("a=0.1,b=0.2,c=0.7").values()) == 1
    assert parse_fractions("a=1/3,b=2/3")["a"] == Fraction(1, 3)


def picture(number):
    buffer = BytesIO()
    Image.new("RGB", (4, 4), (number % 256, number // 256, 7)).save(buffer, "png")
    return buffer.getvalue()


class Dataset:
    """A folder of pictures by name, of which the number is the content, and its store."""

    def __init__(self, folder):
        self.folder, self.store = folder, str(folder / "store")

    def add(self, files, dataset="pets", split="train"):
        root = self.folder / dataset / split
        for name, number in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(picture(number) if number is not None else b"no picture")
        parameters = IngestFolderParameters(
            source=str(root), store=self.store, dataset=dataset, split=split,
            id_prefix="" if split == "train" else f"{split}/",
        )  # fmt: skip
        run = prepare_folder(parameters)
        commit_ingest(run, [ingest_chunk(run, chunk) for chunk in run.chunks])

    def split(self, **options):
        made = divide(SplitParameters(store=self.store, dataset="pets", **options))
        rows = self.rows(made.version)
        return made, {row["image_id"]: row["split"] for row in rows}

    def rows(self, version):
        table = open_store(self.store).table(version.table)
        return table.read(version, [column.name for column in version.columns]).to_pylist()


@pytest.fixture
def pets(tmp_path):
    dataset = Dataset(tmp_path)
    dataset.add({f"{'cats' if n % 2 else 'dogs'}/shot{n // 4}_{n}.png": n for n in range(60)} | {"cats/no.png": None})
    return dataset


def test_divide_again_and_with_added_images_moves_none(pets):
    made, before = pets.split(labels_per_class=3)
    again, same = pets.split(labels_per_class=3)
    assert (again.version.number, same) == (made.version.number, before)
    assert (made.sizes, made.images.rejected, made.leaks) == (
        {"train": 48, "val": 6, "test": 6},
        {"not_an_image": 1},
        0,
    )
    roles = {row["image_id"]: row["role"] for row in pets.rows(made.version)}
    pets.add({f"cats/a{n}.png": 100 + n for n in range(10)})
    grown, after = pets.split(labels_per_class=4)
    assert grown.kept == 60
    assert {image_id: after[image_id] for image_id in before} == before
    assert grown.sizes == {"train": 56, "val": 7, "test": 7}
    new_roles = {row["image_id"]: row["role"] for row in pets.rows(grown.version)}
    assert {i for i, role in roles.items() if role == "labelled"} < {i for i, r in new_roles.items() if r == "labelled"}
    labelled = Counter(i.split("/")[0] for i, role in new_roles.items() if role == "labelled")
    assert labelled == {"cats": 4, "dogs": 4}
    assert all((role is None) == (after[i] != "train") for i, role in new_roles.items())


def test_divide_another_seed_is_another_draw(pets):
    assert pets.split(seed=1)[1] != pets.split(seed=2)[1]


@pytest.mark.parametrize("stratify", [True, False])
def test_divide_groups_and_same_bytes_stay_together(pets, stratify):
    pets.add({"cats/copy_of_0.png": 0, "dogs/copy_of_5.png": 5})
    made, splits = pets.split(group_pattern=r"/(shot\d+)_", stratify=stratify, fractions="a=0.5,b=0.5")
    of_group = defaultdict(set)
    for row in pets.rows(made.version):
        of_group[row["group"]].add(row["split"])
    assert (made.groups, made.leaks) == (15, 0)
    assert all(len(found) == 1 for group, found in of_group.items() if group is not None)
    assert splits["cats/copy_of_0.png"] == splits["dogs/shot0_0.png"]
    assert splits["dogs/copy_of_5.png"] == splits["cats/shot1_5.png"]


def test_divide_by_a_column_and_unknown_names(pets):
    made, splits = pets.split(group_column="label", fractions="a=0.5,b=0.5")
    assert len({(i.split("/")[0], split) for i, split in splits.items()}) == made.groups == 2
    with pytest.raises(BadInput, match="group_column: expected one of image_id, split"):
        pets.split(group_column="colour")
    with pytest.raises(BadInput, match="from_split: expected one of train, got 'val'"):
        pets.split(from_split="val")
    with pytest.raises(ValueError, match="no regular expression"):
        SplitParameters(store="/s", dataset="pets", group_pattern="(")


def test_divide_a_class_with_one_image_and_strange_names_are_told(tmp_path):
    dataset = Dataset(tmp_path)
    dataset.add({"one/ä\n.png": 1, **{f"many/{n}.png": n for n in range(2, 22)}})
    made, splits = dataset.split(labels_per_class=2)
    assert made.short == 1
    assert splits["one/ä\n.png"] == "train"
    assert open_store(dataset.store).table("pets.splits").version().rows == 21


def test_divide_nothing_but_rejects_is_refused(tmp_path):
    dataset = Dataset(tmp_path)
    dataset.add({"cats/no.png": None})
    with pytest.raises(BadInput, match="v1: no whole image to divide"):
        dataset.split()


def test_splits_are_joined_by_sql(pets):
    pets.split()
    with open_store(pets.store).connect() as sql:
        rows = sql.execute(
            "SELECT s.split, i.class_name, count(*) FROM pets.splits AS s JOIN pets.images AS i USING (image_id) "
            "GROUP BY ALL ORDER BY ALL"
        ).fetchall()
    assert rows == [
        ("test", "cats", 3), ("test", "dogs", 3), ("train", "cats", 24), ("train", "dogs", 24), ("val", "cats", 3),
        ("val", "dogs", 3),
    ]  # fmt: skip


@pytest.fixture
def zoo(tmp_path):
    dataset = Dataset(tmp_path)
    files = {f"kind{n % 12:02d}/{n}.png": n for n in range(12 * 6)}
    dataset.add({**files, "rare/a.png": 1000})
    return dataset


def episodes_of(zoo, **options):
    given = {"ways": 3, "shots": 2, "queries": 3, "episodes": 7, "fractions": "train=0.5,test=0.5", **options}
    made = draw_episodes(EpisodesParameters(store=zoo.store, dataset="pets", **given))
    return made, zoo.rows(made.version)


def test_draw_episodes_classes_are_disjoint_and_sets_whole(zoo):
    made, rows = episodes_of(zoo)
    assert (made.classes, made.left_out, len(rows)) == ({"train": 6, "test": 6}, 1, 2 * 7 * 3 * 5)
    labels = {split: {row["label"] for row in rows if row["split"] == split} for split in ("train", "test")}
    assert not labels["train"] & labels["test"]
    episodes = defaultdict(list)
    for row in rows:
        episodes[row["split"], row["episode"]].append(row)
    for found in episodes.values():
        assert len({row["image_id"] for row in found}) == 15
        counts = Counter((row["way"], row["label"], row["role"]) for row in found)
        assert sorted(counts.values()) == [2, 2, 2, 3, 3, 3]
        assert len({row["label"] for row in found}) == 3
    assert len({tuple(sorted(row["image_id"] for row in found)) for found in episodes.values()}) > 10


def test_draw_episodes_more_of_them_leave_the_first_as_they_were(zoo):
    few = episodes_of(zoo)[1]
    many = [row for row in episodes_of(zoo, episodes=9)[1] if row["episode"] < 7]
    assert many == few
    assert episodes_of(zoo, seed=1)[1] != few


def test_draw_episodes_too_few_classes_or_images_is_refused(zoo):
    with pytest.raises(BadInput, match=r"ways: split train has 6 of 12 classes with at least 5 images, expected 7"):
        episodes_of(zoo, ways=7)
    with pytest.raises(BadInput, match=r"ways: split train has 0 of 0 classes with at least 102"):
        episodes_of(zoo, shots=99)


def test_write_domains_and_leaks_between_them(pets):
    pets.add({"cartoon/1.png": 2001, "cartoon/same.png": 4, "no.png": None}, dataset="drawn")
    made = write_domains(DomainsParameters(store=pets.store, dataset="pets", other="drawn", domains="photo,drawing"))
    assert sum(made.sizes.values()) == made.version.rows == 62
    assert (made.leaks, made.rejected) == (1, {"not_an_image": 2})
    found = find_leaks(FindLeaksParameters(store=pets.store, tables="pets.domains"))
    assert (found.rows, found.contents) == (62, 1)
    assert {row["image_id"] for row in pets.rows(found.version)} == {"dogs/shot1_4.png", "cartoon/same.png"}
    with pytest.raises(BadInput, match="other: expected another dataset"):
        write_domains(DomainsParameters(store=pets.store, dataset="pets", other="pets"))


def test_find_leaks_across_splits_and_tables_gives_counts_and_rows(pets):
    pets.add({"cats/copy.png": 3, "cats/other.png": 900}, split="val")
    pets.add({"y/copy.png": 3, "y/two.png": 4}, dataset="drawn", split="test")
    found = find_leaks(FindLeaksParameters(store=pets.store, tables="pets.images, drawn.images"))
    assert found.sides == {
        "drawn.images test and pets.images train": 1,
        "drawn.images test and pets.images train and pets.images val": 1,
    }
    rows = [(row["table"], row["split"], row["image_id"]) for row in pets.rows(found.version)]
    assert sorted(rows) == [
        ("drawn.images", "test", "test/y/copy.png"), ("drawn.images", "test", "test/y/two.png"),
        ("pets.images", "train", "cats/shot0_3.png"), ("pets.images", "train", "dogs/shot1_4.png"),
        ("pets.images", "val", "val/cats/copy.png"),
    ]  # fmt: skip


def test_find_leaks_a_clean_split_is_an_empty_table_and_a_leaking_one_is_not(pets):
    pets.add({"cats/copy.png": 1})
    pets.split()
    assert find_leaks(FindLeaksParameters(store=pets.store, tables="pets.splits")).version.rows == 0
    made, splits = pets.split(same_bytes_together=False, fractions="a=0.5,b=0.5", seed=3)
    leaks = find_leaks(FindLeaksParameters(store=pets.store, tables="pets.splits"))
    assert (splits["cats/copy.png"] != splits["cats/shot0_1.png"]) == (leaks.contents == 1) == (made.leaks == 1)
    with pytest.raises(NotInStore, match="no such table"):
        find_leaks(FindLeaksParameters(store=pets.store, tables="pets.folds"))
