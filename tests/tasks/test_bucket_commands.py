"""The commands as typed at a shell, over a store in a bucket."""

import pytest
from safetensors.torch import load_file


@pytest.fixture
def place(bucket, tmp_path, make_images, ingest, relabel):
    """A store in a bucket with label maps."""
    source = bucket.upload(make_images(tmp_path / "train", {"n01443537": 3, "n01484850": 2}), "train")
    ingest(source, f"{bucket.url}/store")
    relabel(f"{bucket.url}/store")
    return f"{bucket.url}/store"


def test_commands_over_a_bucket(run, place, tmp_path):
    code, out, _ = run("versions", place)
    assert (code, out.count("imagenet.")) == (0, 2)
    query = "SELECT count(*) AS n FROM imagenet.label_maps WHERE status = 'done'"
    assert run("sql", place, query, "--format", "csv") == (0, "n\n5\n", "")
    assert f"'{place}/imagenet/images/parts/" in run("sql", place, "--views")[1]
    assert run("verify", place, "imagenet.label_maps")[0] == 0
    code, out, _ = run("gc", place, "--grace-hours", "0", "--resume-days", "0")
    assert (code, out.count("removed 0 files")) == (0, 2)
    assert run("page", place, "imagenet.label_maps", "--out", tmp_path / "page.html", "--images", "2")[0] == 0
    assert "data:image/jpeg" in (tmp_path / "page.html").read_text()
    assert run("delete", place, "imagenet.label_maps", "1")[0] == 0
    code, _, err = run("verify", place, "imagenet.label_maps")
    assert (code, err) == (2, "labelmill: error: imagenet.label_maps: no such table in this store\n")


@pytest.mark.parametrize(
    "arguments", [("versions",), ("sql", "SELECT 1"), ("verify", "a.b"), ("gc",), ("delete", "a.b", "1")]
)
def test_commands_refuse_a_url_with_a_password_and_do_not_repeat_it(run, arguments):
    command, *rest = arguments
    code, out, err = run(command, "s3://user:not-to-be-seen@bucket/x", *rest)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "not-to-be-seen" not in err


def test_commands_over_a_bucket_that_does_not_answer_say_so_in_one_line(run, place, bucket):
    bucket.faults({"status": 503})
    for command, *rest in (("versions",), ("sql", "SELECT 1"), ("verify", "imagenet.images"), ("gc",)):
        code, out, err = run(command, place, *rest)
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert err.startswith(f"labelmill: error: {place}")


@pytest.mark.drill
@pytest.mark.prefect
def test_run_flows_over_a_bucket(run_cli, bucket, tmp_path, make_images, tiny_teacher):
    source = bucket.upload(make_images(tmp_path / "train", {"n01443537": 3, "n01484850": 2}), "train")
    given = ("--store", f"{bucket.url}/store", "--dataset", "imagenet")
    code, out, err = run_cli("ingest-imagenet", "--source", source, *given)
    assert (code, "5" in out) == (0, True), err
    teacher = [word for pair in tiny_teacher.parameters().items() for word in (f"--{pair[0]}", pair[1])]
    code, out, err = run_cli("relabel", *given, *teacher, "--input-size", "64", "--calibration-images", "8")
    assert code == 0, err
    assert "not-to-be-seen" not in out + err
    bucket.faults({"path": "/train/", "status": 503})
    code, out, err = run_cli("ingest-imagenet", "--source", source, *given, "--rehash")
    assert (code, "Traceback" in err) == (1, False)
    assert f"{source}" in err
    code, out, err = run_cli("ingest-imagenet", "--source", "s3://me:not-to-be-seen@bucket/x", *given)
    assert (code, "not-to-be-seen" in out + err) == (2, False)


@pytest.mark.drill
@pytest.mark.prefect
def test_run_learning_over_a_bucket_gives_the_weights_of_a_folder(run_cli, bucket, tmp_path, make_images, tiny_teacher):
    source = make_images(tmp_path / "train", {"n01443537": 12, "n01484850": 12})
    teacher = [word for pair in tiny_teacher.parameters().items() for word in (f"--{pair[0]}", pair[1])]
    held = make_images(tmp_path / "held", {"n01443537": 4, "n01484850": 4}, first=100)
    steps = (
        ("pseudolabel", *teacher, "--input-size", 64, "--device", "cpu"),
        ("relabel", *teacher, "--input-size", 64, "--calibration-images", 8, "--device", "cpu"),
        ("select", "--threshold", 0.1, "--quota", 8),
        ("pseudo-report",),
        ("disagreements", "--threshold", 0.1),
    )
    student = (
        "--student", "conv4", "--input-size", 32, "--batch-size", 4, "--steps", 6, "--threads", 1, "--workers", 1,
        "--eval-dataset", "held",
    )  # fmt: skip
    weights = {}
    places = {"folder": (source, tmp_path / "store"), "bucket": (bucket.upload(source, "train"), f"{bucket.url}/store")}
    for place, (images, store) in places.items():
        code, _, err = run_cli("ingest-imagenet", "--store", store, "--dataset", "held", "--source", held)
        assert code == 0, err
        given = ("--store", store, "--dataset", "imagenet")
        for flow, *options in (("ingest-imagenet", "--source", images), *steps):
            code, out, err = run_cli(flow, *given, *options, cwd=tmp_path)
            assert (code, "Traceback" in err, "not-to-be-seen" in out + err) == (0, False, False), err
        for objective in ("pseudo", "relabel"):
            kept = tmp_path / place / objective
            code, out, err = run_cli("train", *given, "--objective", objective, *student, "--out", kept)
            assert (code, "not-to-be-seen" in out + err) == (0, False), err
            weights[place, objective] = load_file(kept / "student.safetensors")
    for objective in ("pseudo", "relabel"):
        one, other = weights["folder", objective], weights["bucket", objective]
        assert {name: one[name].tolist() for name in one} == {name: other[name].tolist() for name in other}
