"""What the page of statistics counts by SQL."""

from tests.tasks.annotated_dataset import Dataset, make_jpeg

from labelmill.tasks.statistics.facts import read_facts
from labelmill.tasks.store import open_store

BOX = {"iscrowd": 0, "area": 12, "segmentation": [], "bbox": [1, 1, 4, 3]}


def test_read_facts_images_of_several_classes_count_for_each(tmp_path):
    pets = Dataset(tmp_path)
    for number in (1, 2, 3):
        (pets.images / f"{number}.jpg").write_bytes(make_jpeg())
    pairs = [(1, 7), (1, 9), (2, 9), (2, 9)]
    pets.ingest_coco(
        {
            "images": [{"id": n, "file_name": f"{n}.jpg", "width": 40, "height": 30} for n in (1, 2, 3)],
            "annotations": [
                {**BOX, "id": n, "image_id": image, "category_id": c} for n, (image, c) in enumerate(pairs)
            ],
            "categories": [{"id": 7, "name": "cat"}, {"id": 9, "name": "dog"}],
        }
    )
    store = open_store(pets.store)
    facts = read_facts(store, store.table("coco.images").version(), None)
    assert facts.classes == (("dog", 2), ("cat", 1), ("without label", 1))
    assert facts.class_sizes == (1, 1, 2)


def test_read_facts_image_with_a_label_counts_for_it_alone(tmp_path):
    pets = Dataset(tmp_path)
    pets.ingest_table("path,label\nunlisted.jpg,cat\n", dataset="pets")
    store = open_store(pets.store)
    facts = read_facts(store, store.table("pets.images").version(), None)
    assert facts.classes == (("cat", 1),)
