"""Agreement of two maps: what is equal, what is moved by a known amount, what shares nothing."""

from dataclasses import replace

import pytest
import torch

from labelmill.models.label_pooling import LabelMapBatch
from labelmill.models.map_agreement import compare_maps, list_class_ids


@pytest.fixture
def maps():
    """Two images of 2x3 cells, k = 2 of 9 classes; the second lists one class less than the first."""
    return LabelMapBatch(
        classes=torch.tensor([[4, 0, 7], [2, 5, 9]]),
        absent=torch.zeros(2, 3),
        index=torch.tensor(
            [
                [[[0, 1], [0, 2], [1, 0]], [[2, 0], [0, 1], [1, 2]]],
                [[[0, 1], [0, 1], [1, 0]], [[1, 0], [1, 0], [0, 1]]],
            ]
        ),
        logits=torch.tensor([5.0, 3.0]).expand(2, 2, 3, 2).contiguous(),
        num_classes=9,
    )


def compare(one, other):
    return compare_maps(one, other, absent_share=0.8, temperature=1.0)


def test_compare_maps_of_themselves_agree_in_everything(maps):
    agreement = compare(maps, maps)
    assert agreement.same_top.tolist() == [1.0, 1.0]
    assert agreement.same_pooled.tolist() == [True, True]
    for apart in (agreement.logit_median, agreement.logit_largest, agreement.total_variation):
        assert apart.tolist() == [0.0, 0.0]


def test_compare_maps_logits_moved_in_one_image_are_measured_there_alone(maps):
    moved = maps.logits.clone()
    moved[1] += 0.25
    moved[1, 0, 0, 1] += 1.0
    agreement = compare(maps, replace(maps, logits=moved))
    assert agreement.logit_median.tolist() == [0.0, 0.25]
    assert agreement.logit_largest.tolist() == [0.0, 1.25]
    assert agreement.same_top.tolist() == [1.0, 1.0]
    assert agreement.total_variation[0] == 0 < agreement.total_variation[1]


def test_compare_maps_order_of_the_listed_classes_does_not_matter(maps):
    """A class is what its id says, wherever it stands in the list."""
    order = torch.tensor([2, 0, 1])
    place = order.argsort()
    same = replace(maps, classes=maps.classes[:, order], absent=maps.absent[:, order], index=place[maps.index])
    agreement = compare(maps, same)
    assert agreement.same_top.tolist() == [1.0, 1.0]
    assert agreement.logit_largest.tolist() == [0.0, 0.0]
    assert agreement.total_variation.max() < 1e-6


def test_compare_maps_without_a_shared_class_have_no_difference_of_logits(maps):
    other = replace(maps, classes=torch.tensor([[1, 2, 3], [0, 1, 9]]))
    agreement = compare(maps, other)
    assert agreement.same_top.tolist() == [0.0, 0.0]
    assert agreement.logit_median.isnan().all()
    assert agreement.logit_largest.isnan().all()
    assert (agreement.total_variation > 0.5).all()
    assert agreement.same_pooled.tolist() == [False, False]


def test_compare_maps_swapped_axes_change_the_labels_of_the_crops(maps):
    """The whole image pools to nearly the same label; the crops do not."""
    index, logits = (v.transpose(1, 2).reshape(v.shape) for v in (maps.index, maps.logits))
    agreement = compare(maps, replace(maps, index=index, logits=logits))
    assert (agreement.same_top < 1).all()
    assert (agreement.total_variation > 0).all()


def test_list_class_ids_are_by_row_then_column(maps):
    ids = list_class_ids(maps)
    assert ids.shape == (2, 6, 2)
    for image in range(2):
        for y in range(2):
            for x in range(3):
                expected = maps.classes[image, maps.index[image, y, x]]
                assert ids[image, 3 * y + x].tolist() == expected.tolist()
