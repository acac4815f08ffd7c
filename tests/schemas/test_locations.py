"""What may name a place, and what is never repeated."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from labelmill.schemas.errors import BadInput
from labelmill.schemas.locations import check_location, is_object_url, join_location
from labelmill.schemas.parameters import IngestFolderParameters, RelabelParameters


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        ("gs://my.bucket_1/a/b c/", "gs://my.bucket_1/a/b c"),
        ("/a/b", "/a/b"),
        ("file:///a/b", "/a/b"),
        ("rel", str(Path("rel").absolute())),
        ("~/x", str(Path.home() / "x")),
    ],
)
def test_check_location_keeps_urls_and_makes_paths_absolute(given, kept):
    assert check_location(given) == kept
    assert check_location(kept) == kept
    assert is_object_url(kept) == given.startswith(("s3", "gs"))


@pytest.mark.parametrize("scheme", ["http", "https", "ftp", "memory", "gcs", "s3a", "S3"])
def test_check_location_other_schemes_are_refused_by_name(scheme):
    with pytest.raises(BadInput, match=f"^{scheme}:// is not supported: .*never replaces a version"):
        check_location(f"{scheme}://user:not-to-be-seen@bucket/x?key=not-to-be-seen")


SECRETS = [
    "s3://AKIA:not-to-be-seen@bucket/x",
    "s3://not-to-be-seen@bucket",
    "gs://bucket/x?key=not-to-be-seen",
    "s3://bucket?X-Amz-Signature=not-to-be-seen",
    "s3://bucket/x#not-to-be-seen",
    "s3://AKIA:not-to-be-seen",
    "http://user:not-to-be-seen@host/x",
]


@pytest.mark.parametrize("url", SECRETS)
def test_check_location_with_credentials_is_refused_and_not_repeated(url):
    with pytest.raises(BadInput) as raised:
        check_location(url)
    assert "not-to-be-seen" not in str(raised.value)


@pytest.mark.parametrize("url", SECRETS)
@pytest.mark.parametrize("field", ["store", "source"])
def test_parameters_with_credentials_in_a_url_do_not_repeat_them(url, field):
    with pytest.raises(ValidationError) as raised:
        IngestFolderParameters(**{"source": "/a", "store": "/b", "dataset": "pets", field: url})
    assert "not-to-be-seen" not in str(raised.value)
    with pytest.raises(ValidationError):
        RelabelParameters(store="/b", dataset="pets", teacher="resnet18", image_root=url)


@pytest.mark.parametrize("url", ["s3://", "s3:///x", "gs://-/x", "s3://b u/x", "s3://bucket/a//b", "s3://bucket/../x"])
def test_check_location_url_without_bucket_or_plain_prefix_is_refused(url):
    with pytest.raises(BadInput, match="expected"):
        check_location(url)


@pytest.mark.parametrize(
    ("root", "path", "joined"),
    [
        ("s3://b/x", "a/b", "s3://b/x/a/b"),
        ("s3://b", "/etc/passwd", "s3://b//etc/passwd"),
        ("/r", "a/b", "/r/a/b"),
        (Path("/r"), "a", "/r/a"),
    ],
)
def test_join_location_stays_below_its_root(root, path, joined):
    assert join_location(root, path) == joined
