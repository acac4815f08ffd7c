"""Templates of names are refused before they make what is no name."""

import pytest

from labelmill.schemas.parameters import RenameParameters


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{clas}/{index}", r"no field \{clas\}; fields: index, number, stem"),
        ("{index.real}", "no field"),
        ("{index!r}", "no field"),
        ("{index:{ext}}", "no field"),
        ("{}", "no field"),
        ("{index:q}", "a format does not fit"),
        ("{stem:05d}", "a format does not fit"),
        ("{index", "braces"),
        ("plain", "at least one field"),
        ("../{index}", "stays below the source"),
        ("{index:0300d}", "at most 255 bytes"),
        ("{index:9999999999d}", "width of {index:9999999999d}: a name has at most 255 bytes"),
        ("{index}\0", "expected a name"),
    ],
)
def test_rename_parameters_refuse_templates_that_make_no_names(template, words):
    with pytest.raises(ValueError, match=words):
        RenameParameters(source="/x", template=template)
