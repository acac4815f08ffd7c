"""Flows take their parameter model's fields: one description for the command line, Prefect's checks and its form."""

import inspect

import pytest
from pydantic import ValidationError

from labelmill.flows.registry import FLOWS

GIVEN = {
    "relabel": {"store": "/s", "dataset": "imagenet", "teacher": "resnet18"},
    "pseudolabel": {"store": "/s", "dataset": "imagenet", "teacher": "resnet18"},
    "ingest-imagenet": {"source": "/i", "store": "/s", "dataset": "imagenet"},
    "ingest-folder": {"source": "/i", "store": "/s", "dataset": "pets"},
    "extract": {"source": "/a.tar", "out": "/o"},
    "ingest-cifar": {"source": "/i", "store": "/s", "dataset": "cifar10"},
    "ingest-svhn": {"source": "/i", "store": "/s", "dataset": "svhn", "out": "/o"},
    "ingest-lsun": {"source": "/i", "store": "/s", "dataset": "lsun"},
    "ingest-coco": {"annotations": "/a.json", "images": "/i", "store": "/s", "dataset": "coco"},
    "ingest-yolo": {"source": "/y", "store": "/s", "dataset": "coco"},
    "ingest-voc": {"source": "/v", "store": "/s", "dataset": "voc"},
    "ingest-table": {"table": "/t.csv", "images": "/i", "store": "/s", "dataset": "pets"},
    "export": {"store": "/s", "dataset": "coco", "format": "yolo", "out": "/o"},
    "imagenet-pipeline": {"source": "/i", "store": "/s", "teacher": "resnet18"},
    "import-label-maps": {"source": "/m", "store": "/s", "dataset": "imagenet", "teacher": "l2"},
    "export-label-maps": {"store": "/s", "table": "imagenet.label_maps", "out": "/o"},
    "split": {"store": "/s", "dataset": "pets"},
    "episodes": {"store": "/s", "dataset": "pets"},
    "domains": {"store": "/s", "dataset": "pets", "other": "zoo"},
    "find-leaks": {"store": "/s", "tables": "pets.splits"},
    "augment": {"store": "/s", "dataset": "pets"},
    "statistics": {"store": "/s", "dataset": "pets"},
    "rename": {"source": "/i"},
    "select": {"store": "/s", "dataset": "pets"},
    "pseudo-report": {"store": "/s", "dataset": "pets"},
    "disagreements": {"store": "/s", "dataset": "pets"},
    "verdicts": {"store": "/s", "dataset": "pets", "csv": "/v.csv"},
    "anchors": {"store": "/s", "dataset": "coco"},
    "train": {"store": "/s", "dataset": "pets", "steps": "10", "out": "/o"},
}


@pytest.fixture(params=sorted(FLOWS))
def name(request):
    return request.param


def test_flow_name_is_the_registrys(name):
    assert FLOWS[name].load().name == name


def test_flow_arguments_are_the_models_fields_with_their_defaults(name):
    fields = FLOWS[name].parameters.model_fields
    arguments = inspect.signature(FLOWS[name].load().fn).parameters
    assert list(arguments) == list(fields)
    for argument in arguments.values():
        field = fields[argument.name]
        assert argument.kind is inspect.Parameter.KEYWORD_ONLY
        assert (argument.default is inspect.Parameter.empty) == field.is_required()
        if not field.is_required():
            assert argument.default == field.default


def test_flow_form_has_every_field_with_its_description_and_bounds(name):
    model = FLOWS[name].parameters
    schema = FLOWS[name].load().parameters
    assert list(schema.properties) == list(model.model_fields)
    assert sorted(schema.required) == sorted(n for n, field in model.model_fields.items() if field.is_required())
    own = model.model_json_schema()["properties"]
    for field, shown in schema.properties.items():
        assert shown["description"] == model.model_fields[field].description
        for bound in ("minimum", "maximum", "pattern", "minLength", "default"):
            assert shown.get(bound) == own[field].get(bound), (field, bound)


def test_flow_takes_flat_parameters_as_text_as_param_gives_them(name):
    flow = FLOWS[name].load()
    number = next((field for field in ("workers", "seed") if field in FLOWS[name].parameters.model_fields), None)
    if number is None:
        pytest.skip("takes no number")
    checked = flow.validate_parameters({**GIVEN[name], number: "3"})
    assert checked[number] == 3
    assert FLOWS[name].parameters(**checked).model_dump() == {
        **FLOWS[name].parameters(**GIVEN[name]).model_dump(), number: 3,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("relabel", {"top_k": 0}),
        ("relabel", {"input_size": "224x"}),
        ("relabel", {"dataset": "Image Net"}),
        ("relabel", {"store": "http://bucket"}),
        ("relabel", {"top-k": 3}),
        ("relabel", {"parameters": {}}),
        ("ingest-imagenet", {"split": "a/b"}),
        ("ingest-folder", {"labels": "file"}),
    ],
)
def test_flow_refuses_bad_parameters_before_a_run_is_made(name, given):
    from prefect.exceptions import ParameterTypeError

    with pytest.raises((ValidationError, ParameterTypeError, TypeError)) as caught:
        FLOWS[name].load().validate_parameters({**GIVEN[name], **given})
    assert next(iter(given)) in str(caught.value)


def test_flow_leaves_out_a_required_parameter_says_which():
    from prefect.exceptions import ParameterTypeError

    with pytest.raises((ParameterTypeError, TypeError), match="teacher"):
        FLOWS["relabel"].load().validate_parameters({"store": "/s", "dataset": "imagenet"})
