"""A real teacher on real photos: the figures that its plain classifier reaches on whole images."""

from contextlib import closing

import pyarrow.parquet as pq
import pytest

from labelmill.schemas.parameters import PseudolabelParameters
from labelmill.tasks.pseudo_labels.job import commit_pseudo_labels, predict_shard, prepare_pseudolabel
from labelmill.tasks.store import open_store


@pytest.mark.sample_data
def test_pseudolabel_of_the_sample_images_reaches_the_reference(sample_data, tmp_path, ingest):
    columns = ["image", "wnid"]
    samples = pq.read_table(sample_data / "imagenet" / "sample1000_short256.parquet", columns=columns).to_pylist()
    for row in samples:
        (tmp_path / "train" / row["wnid"]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "train" / row["wnid"] / "0.JPEG").write_bytes(row["image"])
    ingest(tmp_path / "train", tmp_path / "store")
    weights = sample_data / "weights" / "efficientnet_lite0_imagenet1k_fp16.safetensors"
    given = {"store": str(tmp_path / "store"), "dataset": "imagenet", "device": "cpu"}
    run = prepare_pseudolabel(PseudolabelParameters(**given, teacher="tf_efficientnet_lite0", weights=str(weights)))
    with closing(run.predictor):
        commit_pseudo_labels(run, [predict_shard(run, shard) for shard in run.shards])
    with open_store(tmp_path / "store").connect() as sql:
        right, sure, right_of_sure = sql.execute(
            "SELECT avg((pseudo_class = label)::INT), avg((confidence >= 0.9)::INT), "
            "avg((pseudo_class = label)::INT) FILTER (confidence >= 0.9) FROM imagenet.pseudo_labels"
        ).fetchone()
    assert right == pytest.approx(0.815, abs=0.002)
    assert sure > 0.25
    assert right_of_sure > 0.98  # the surer, the more often right
