"""Anchors are always k, each with a box, the same at each run, and better than those of k-means."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from labelmill.models.anchor_clustering import cluster_anchors, describe_anchors, mean_best_iou_gradient
from labelmill.models.box_sizes import best_ious, size_iou, size_ratios
from labelmill.schemas.errors import BadInput

SIZES = npst.arrays(np.float64, st.tuples(st.integers(1, 60), st.just(2)), elements=st.floats(2**-10, 2**13, width=32))
TIES = npst.arrays(np.float64, st.tuples(st.integers(1, 60), st.just(2)), elements=st.sampled_from([1.0, 2.0, 3.0]))


def median_kmeans(boxes, k, seed, metric="iou"):
    """k-means by 1 - IoU with medians, as most scripts do it; by Euclidean distance it takes means."""
    random = np.random.default_rng(seed)
    anchors = boxes[random.choice(len(boxes), k, replace=False)]
    last = None
    for _ in range(300):
        if metric == "iou":
            which = best_ious(boxes, anchors)[1]
        else:
            which = ((boxes[:, None] - anchors[None]) ** 2).sum(2).argmin(1)
        if last is not None and (which == last).all():
            break
        centre = np.median if metric == "iou" else np.mean
        anchors = np.stack([centre(boxes[which == n], axis=0) if (which == n).any() else anchors[n] for n in range(k)])
        last = which
    return anchors


def draw_sizes(count, seed=0):
    random = np.random.default_rng(seed)
    return np.exp(random.normal([3.5, 3.8], [1.0, 0.9], (count, 2)))


@settings(max_examples=40, deadline=None)
@given(boxes=SIZES | TIES, k=st.integers(1, 12), seed=st.integers(0, 3))
def test_cluster_anchors_any_sizes_each_anchor_has_a_box(boxes, k, seed):
    k = min(k, len(np.unique(boxes, axis=0)))
    found = cluster_anchors(boxes, k, seed=seed)
    assert found.sizes.shape == (k, 2)
    assert np.isfinite(found.sizes).all()
    assert (found.sizes > 0).all()
    assert (found.counts >= 1).all()
    assert found.counts.sum() == len(boxes)
    assert (np.diff(found.sizes.prod(1)) >= 0).all()
    assert found.mean_iou == pytest.approx(best_ious(boxes, found.sizes)[0].mean(), rel=1e-6)
    assert 0 < found.mean_iou <= 1


@pytest.mark.parametrize(
    "boxes",
    [
        pytest.param(np.repeat([[1.0, 1.0]], 500, 0) + np.arange(500)[:, None] % 9 * 1e-6, id="nearly equal"),
        pytest.param(np.exp2(np.linspace(-120, 120, 40))[:, None] * [1.0, 1.0], id="from tiny to huge"),
        pytest.param(np.vstack([np.full((10_000, 2), 30.0), draw_sizes(8)]), id="one size and a few"),
    ],
)
def test_cluster_anchors_awkward_sizes_each_anchor_has_a_box(boxes):
    found = cluster_anchors(boxes, 9)
    assert (found.counts >= 1).all()
    assert np.isfinite(found.sizes).all()


def test_cluster_anchors_as_many_as_sizes_are_the_sizes():
    boxes = np.array([[10, 10], [20, 40], [40, 20], [100, 90]] * 5, float)
    found = cluster_anchors(boxes, 4)
    assert found.mean_iou == pytest.approx(1)
    np.testing.assert_allclose(np.sort(found.sizes, 0), np.sort(boxes[:4], 0), rtol=1e-6)


def test_cluster_anchors_again_gives_the_same_bytes_and_another_seed_nearly_the_same_iou():
    boxes = draw_sizes(3000)
    one, same, other = (cluster_anchors(boxes, 5, seed=seed) for seed in (0, 0, 1))
    assert one.sizes.tobytes() == same.sizes.tobytes()
    assert other.mean_iou == pytest.approx(one.mean_iou, abs=2e-3)


def test_cluster_anchors_no_order_of_boxes_matters():
    boxes = draw_sizes(2000)
    one, other = cluster_anchors(boxes, 4), cluster_anchors(boxes[::-1], 4)
    np.testing.assert_allclose(one.sizes, other.sizes, rtol=1e-6)


def test_cluster_anchors_are_at_least_as_good_as_the_best_of_ten_median_kmeans():
    boxes = draw_sizes(3000)
    best = max(describe_anchors(boxes, median_kmeans(boxes, 6, seed)).mean_iou for seed in range(10))
    assert cluster_anchors(boxes, 6).mean_iou >= best


@pytest.mark.parametrize(
    ("boxes", "k", "words"),
    [
        ([[1, 1], [2, 2]], 0, "at least 1 anchor, got 0"),
        ([[1, 1], [1, 1], [2, 2]], 3, "at least 3 different box sizes, got 2"),
        ([], 1, "at least 1 different box sizes, got 0"),
        ([[1, 0]], 1, "finite and above 0"),
        ([[1, np.nan]], 1, "finite and above 0"),
        ([[1, 1e300]], 1, "finite and above 0"),
        ([[1, -1]], 1, "finite and above 0"),
    ],
)
def test_cluster_anchors_what_cannot_be_clustered_is_refused(boxes, k, words):
    with pytest.raises(BadInput, match=words):
        cluster_anchors(np.array(boxes, float).reshape(-1, 2), k)


def test_mean_best_iou_gradient_is_that_of_finite_differences():
    boxes, weights = draw_sizes(400), np.random.default_rng(1).uniform(0.5, 3, 400)
    anchors = draw_sizes(3, seed=5)
    value, gradient, share = mean_best_iou_gradient(boxes, weights, anchors)
    assert value == pytest.approx(np.average(size_iou(boxes, anchors).max(1), weights=weights))
    assert share.sum() == pytest.approx(1)
    for place in np.ndindex(3, 2):
        step = np.zeros((3, 2))
        step[place] = 1e-6
        up, down = (mean_best_iou_gradient(boxes, weights, anchors * np.exp(s))[0] for s in (step, -step))
        assert gradient[place] == pytest.approx((up - down) / 2e-6, abs=1e-6)


def test_size_iou_by_hand():
    boxes, anchors = np.array([[10.0, 10.0], [20.0, 5.0]]), np.array([[10.0, 20.0], [5.0, 5.0]])
    np.testing.assert_allclose(size_iou(boxes, anchors), [[100 / 200, 25 / 100], [50 / 250, 25 / 100]])
    best, which = best_ious(boxes, anchors)
    assert best.tolist() == [0.5, 0.25]
    assert which.tolist() == [0, 1]


def test_size_ratios_by_hand():
    anchors = np.array([[10.0, 10.0], [100.0, 100.0]])
    np.testing.assert_allclose(size_ratios(np.array([[20.0, 5.0], [100, 100], [10, 90]]), anchors), [0.5, 1, 1 / 9])


def test_best_ious_many_boxes_are_those_of_the_whole_table():
    boxes, anchors = draw_sizes(70_000), draw_sizes(4, seed=3)
    table = size_iou(boxes, anchors)
    best, which = best_ious(boxes, anchors)
    np.testing.assert_allclose(best, table.max(1), rtol=1e-12)
    assert (table[np.arange(len(boxes)), which] >= best - 1e-12).all()


@pytest.mark.sample_data
def test_cluster_anchors_sample_boxes_give_the_order_of_yolo9000s_table_1(sample_data):
    """Table 1: Euclidean k=5 58.7, IoU k=5 61.0, IoU k=9 67.2."""
    import pyarrow.parquet as pq

    rows = pq.read_table(sample_data / "boxes/coco_person2017_boxes_norm.parquet", columns=["w", "h"])
    boxes = 416 * np.stack([rows[name].to_numpy() for name in ("w", "h")], 1)[::8].astype(np.float64)
    euclidean = describe_anchors(boxes, median_kmeans(boxes, 5, 0, "euclidean")).mean_iou
    five, nine = (cluster_anchors(boxes, k).mean_iou for k in (5, 9))
    assert euclidean < five < nine
