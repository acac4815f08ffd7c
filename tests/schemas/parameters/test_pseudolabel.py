"""Further teachers as text, and the tables that pseudo labels may not take the place of."""

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from labelmill.schemas.errors import BadInput
from labelmill.schemas.parameters import PseudolabelParameters, parse_further_teachers

GIVEN = {"store": "/s", "dataset": "imagenet", "teacher": "resnet18"}


@pytest.mark.parametrize(
    ("also", "expected"),
    [
        ("", ()),
        ("resnet50", (("resnet50", "pretrained"),)),
        ("resnet50.a1_in1k=pretrained", (("resnet50.a1_in1k", "pretrained"),)),
        (
            " a = /w/a=b.pth , torchvision/b=package:b-model",
            (("a", "/w/a=b.pth"), ("torchvision/b", "package:b-model")),
        ),
    ],
)
def test_parse_further_teachers_gives_names_and_weights(also, expected):
    assert parse_further_teachers(also) == expected


@pytest.mark.parametrize("also", ["=w.pth", "a,", "a=", ","])
def test_parse_further_teachers_incomplete_is_refused(also):
    with pytest.raises(BadInput, match=r"also: .*: expected NAME=WEIGHTS"):
        parse_further_teachers(also)
    with pytest.raises(ValidationError, match="also"):
        PseudolabelParameters(**GIVEN, also=also)


def test_pseudolabel_parameters_weights_of_also_are_absolute(tmp_path, monkeypatch):
    """The lineage is read in other folders."""
    monkeypatch.chdir(tmp_path)
    also = PseudolabelParameters(**GIVEN, also="a=w.pth, b").also
    assert also == f"a={Path.cwd() / 'w.pth'},b=pretrained"
    assert PseudolabelParameters(**GIVEN, also=also).also == also


@pytest.mark.parametrize(
    ("also", "fits"),
    [("", True), ("a", True), ("a=/w.pth,b=package:c,d=pretrained", True), ("a=w.pth", False), ("a,b=w.pth", False)],
)
def test_pseudolabel_form_refuses_relative_weights(also, fits):
    pattern = PseudolabelParameters.model_json_schema()["properties"]["also"]["pattern"]
    assert (re.search(pattern, also) is not None) == fits


@pytest.mark.parametrize("table", ["images", "label_maps", "Soft", "1st"])
def test_pseudolabel_parameters_name_of_another_table_is_refused(table):
    with pytest.raises(ValidationError, match="table"):
        PseudolabelParameters(**GIVEN, table=table)
