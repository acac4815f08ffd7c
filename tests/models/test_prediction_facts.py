"""What is kept of predictions, by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

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


@settings(deadline=None)
@given(
    st.integers(2, 12).flatmap(
        lambda classes: st.lists(
            st.lists(st.floats(-30, 30, width=32), min_size=classes, max_size=classes), min_size=1, max_size=4
        )
    ),
    st.data(),
)
def test_find_prediction_facts_agree_with_the_distribution(logits, data):
    probabilities = torch.tensor(logits).softmax(1)
    count = probabilities.shape[1]
    facts = find_prediction_facts(probabilities, data.draw(st.integers(1, count)))
    assert torch.equal(facts.probabilities, probabilities.gather(1, facts.class_ids))
    assert torch.equal(facts.confidence, probabilities.amax(1))
    assert bool((facts.probabilities.diff(dim=1) <= 0).all())
    assert bool(((facts.margin >= 0) & (facts.margin <= facts.confidence)).all())
    assert bool(((facts.entropy >= 0) & (facts.entropy <= math.log(count) + 1e-5)).all())
    ties = facts.probabilities.diff(dim=1) == 0
    assert bool((facts.class_ids.diff(dim=1)[ties] > 0).all())  # the lower id comes first
