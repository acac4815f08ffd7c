"""What is kept of predictions, by hand."""

import math

import pytest
import torch

from labelmill.models.prediction_facts import find_prediction_facts
from labelmill.schemas.errors import BadInput


def test_find_prediction_facts_by_hand():
    facts = find_prediction_facts(torch.tensor([[0.1, 0.7, 0.2], [0.25, 0.5, 0.25]]), 2)
    assert facts.class_ids.tolist() == [[1, 2], [1, 0]]  # of equal ones the lower id
    assert facts.probabilities.flatten().tolist() == pytest.approx([0.7, 0.2, 0.5, 0.25])
    assert facts.confidence.tolist() == pytest.approx([0.7, 0.5])
    assert facts.margin.tolist() == pytest.approx([0.5, 0.25])
    assert facts.entropy.tolist()[1] == pytest.approx(1.5 * math.log(2))


def test_find_prediction_facts_sure_prediction_has_no_entropy():
    assert find_prediction_facts(torch.tensor([[0.0, 1.0]]), 1).entropy.item() == 0


@pytest.mark.parametrize(
    ("probabilities", "top_k", "said"),
    [(torch.ones(3, 1), 1, "probabilities"), (torch.ones(3), 1, "probabilities"), (torch.ones(1, 4), 5, "top_k")],
)
def test_find_prediction_facts_wrong_input_is_refused_by_name(probabilities, top_k, said):
    with pytest.raises(BadInput, match=said):
        find_prediction_facts(probabilities, top_k)
