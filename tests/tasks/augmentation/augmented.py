"""Run augment without Prefect, as the flow does it."""

from dataclasses import dataclass

from labelmill.schemas.parameters import AugmentParameters
from labelmill.schemas.versions import Version
from labelmill.tasks.augmentation.carry_boxes import commit_boxes
from labelmill.tasks.augmentation.job import AugmentRun, commit_images, commit_views, prepare_augment
from labelmill.tasks.augmentation.shard import find_shard, make_shard
from labelmill.tasks.store import open_store
from labelmill.tasks.written.file_tree import FileTree


@dataclass(frozen=True)
class Made:
    run: AugmentRun
    views: Version
    images: Version | None
    boxes: tuple | None
    worked: int

    def rows(self, name):
        table = open_store(self.run.parameters.store).table(name)
        version = table.version()
        return table.read(version, [column.name for column in version.columns]).to_pylist()


def augment(store, *, shards=None, **options):
    """Make all views; with `shards` only so many shards, and commit nothing."""
    parameters = AugmentParameters(**{"store": str(store), "dataset": "coco", "workers": 2, **options})
    run = prepare_augment(parameters)
    tree = FileTree(parameters.out) if parameters.out else None
    receipts, worked = [], 0
    try:
        for shard in run.shards[:shards]:
            found = find_shard(run, shard)
            if found is None:
                worked += 1
                found = make_shard(run, shard, tree)
            receipts.append(found)
    finally:
        if tree:
            tree.__exit__()
    if shards is not None:
        return None
    images = commit_images(run, receipts)
    boxes = commit_boxes(run, receipts)
    return Made(run, commit_views(run, receipts), images, boxes, worked)
