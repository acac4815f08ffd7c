"""Steps in an order where nobody stands in another's way."""

from hypothesis import given, settings
from hypothesis import strategies as st

from labelmill.tasks.rename.list_names import natural_key
from labelmill.tasks.rename.plan import order_steps

NAMES = st.sampled_from(["a", "A", "b", "B", "1.jpg", "sub/a", "sub/b", "ß", "new\nline", "sub/c", "deep/er/x"])
MAPPINGS = st.lists(NAMES, unique=True, min_size=1, max_size=7).flatmap(
    lambda old: st.lists(NAMES, unique=True, min_size=len(old), max_size=len(old)).map(
        lambda new: {o: n for o, n in zip(old, new, strict=True)}
    )
)


@settings(deadline=None)
@given(mapping=MAPPINGS)
def test_order_steps_any_permutation_never_uses_a_name_twice(mapping):
    names = {old: old for old in mapping}
    moves = [(number, old, new) for number, (old, new) in enumerate(mapping.items())]
    for _, source, target, _ in order_steps(moves, detour=lambda file: f"detour-{file}"):
        assert target not in names
        names[target] = names.pop(source)
    assert names == {new: old for old, new in mapping.items()}


def test_order_steps_change_of_case_alone_takes_a_detour():
    steps = list(order_steps([(0, "Cat.JPG", "cat.jpg")], detour=lambda file: "detour", ignores_case=True))
    assert [(step.source, step.target) for step in steps] == [("Cat.JPG", "detour"), ("detour", "cat.jpg")]


@settings(deadline=None)
@given(st.lists(st.text("a1/20٣B", min_size=1), unique=True))
def test_natural_key_orders_any_names_digits_as_numbers(names):
    assert len(sorted(names, key=natural_key)) == len(names)
    assert natural_key("img2") < natural_key("img10") < natural_key("img10a") < natural_key("img11/x")
    assert natural_key("a/b") < natural_key("a1/b")
