import pytest
import torch
from torch import nn

from labelmill.models.weights import Weights
from labelmill.models.weights_match import FREE_ROWS, digest_weights, load_matched, match_weights
from labelmill.schemas.errors import BadInput


def make_model(num_classes=FREE_ROWS, blocks=12):
    """Equal blocks: shapes alone cannot tell one from another."""
    body = [nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)) for _ in range(blocks)]
    return nn.Sequential(nn.ModuleDict({"blocks": nn.Sequential(*body), "head": nn.Linear(4, num_classes)}))


def rename(state, name):
    return {name(key): value for key, value in state.items()}


def weights_of(state):
    return Weights(tensors={k: v for k, v in state.items() if "num_batches" not in k}, source="w.pth")


def foreign(key):
    """Another library's names: the classifier's sorts before the body's, a block's parts are numbered."""
    return key.replace("0.blocks.", "features.").replace("0.head.", "classifier.1.")


def filled(num_classes=5):
    model = make_model(num_classes)
    for n, value in enumerate(model.state_dict().values()):
        value.fill_(n)
    return model


ORDERS = {
    "as built": lambda state: state,
    "as text": lambda state: dict(sorted(state.items())),
    "reversed": lambda state: dict(reversed(list(state.items()))),
}


def test_match_weights_same_names_match_by_name_in_any_order():
    source = filled()
    shuffled = dict(sorted(source.state_dict().items(), reverse=True))

    match = match_weights(weights_of(shuffled), make_model())

    assert (match.how, match.num_classes) == ("by name", 5)
    assert all(key == file_key for key, file_key in match.file_keys.items())


@pytest.mark.parametrize("order", list(ORDERS))
def test_match_weights_other_names_put_every_tensor_in_its_place(order):
    source, target = filled(), make_model(5)
    weights = weights_of(ORDERS[order](rename(source.state_dict(), foreign)))

    match = match_weights(weights, make_model())
    load_matched(target, weights, match)

    assert (match.how, match.num_classes) == ("by order", 5)
    assert digest_weights(target) == digest_weights(source)


def test_match_weights_text_order_of_numbers_is_not_taken_for_the_models_order():
    model = nn.ModuleDict({"blocks": nn.Sequential(*[nn.Linear(4, 4) for _ in range(12)]), "head": nn.Linear(4, 5)})
    wanted = nn.ModuleDict({"blocks": model["blocks"], "head": nn.Linear(4, FREE_ROWS)})
    state = dict(
        sorted((k.replace("blocks", "layers").replace("head", "top"), v) for k, v in model.state_dict().items())
    )

    match = match_weights(weights_of(state), wanted)

    assert match.file_keys["blocks.2.weight"] == "layers.2.weight"
    assert match.file_keys["blocks.10.weight"] == "layers.10.weight"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda s: s.pop("0.blocks.3.0.weight"), r"missing 1: 0.blocks.3.0.weight \(4, 4, 1, 1\)"),
        (lambda s: s.update({"0.extra.weight": torch.ones(2)}), r"unexpected 1: 0.extra.weight \(2\)"),
        (
            lambda s: s.update({"0.blocks.3.0.weight": torch.ones(4, 4, 3, 3)}),
            r"of another shape 1: 0.blocks.3.0.weight \(4, 4, 3, 3\) in place of \(4, 4, 1, 1\)",
        ),
        (lambda s: s.update({"0.head.bias": torch.ones(6)}), "its classifier's weight and bias disagree"),
    ],
    ids=["missing", "left over", "shape", "rows"],
)
def test_match_weights_that_do_not_fit_are_listed(change, text):
    state = filled().state_dict()
    change(state)

    with pytest.raises(BadInput, match=text):
        match_weights(weights_of(state), make_model())


def test_digest_weights_depends_on_values_and_names_but_not_on_step_counters():
    source, counted, changed = filled(), filled(), filled()
    counted[0]["blocks"][0][1].num_batches_tracked += 9
    changed[0]["blocks"][0][1].running_mean += 1e-6

    assert digest_weights(counted) == digest_weights(source)
    assert digest_weights(changed) != digest_weights(source)
    assert digest_weights(nn.Sequential(source)) != digest_weights(source)
