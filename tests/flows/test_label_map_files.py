"""The flows that import and export map files, by the command line, up to kill -9."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from labelmill.cli import main
from labelmill.schemas.parameters import ImportLabelMapsParameters
from labelmill.tasks.store import open_store
from labelmill.tasks.store.verify import verify_version


@pytest.fixture
def run(run_apart):
    """Run `labelmill run …` to its end; return exit code, the outcome's lines by name, and standard error."""

    def show(*options):
        code, out, err = run_apart("run", *options)
        return code, dict(re.findall(r"^ +(\S.*?)  +(.*)$", out, re.MULTILINE)), err

    return show


@pytest.fixture
def imagenet(tmp_path, make_images, ingest):
    """A store of 60 images and a folder with a map file for all but the last; return both."""
    ingest(make_images(tmp_path / "train", {"n01443537": 30, "n01484850": 30}), tmp_path / "store")
    random = np.random.default_rng(0)
    images = sorted((tmp_path / "train").rglob("*.JPEG"))
    for path in images[:-1]:
        ids = random.random((2, 3, 1000)).argsort(-1)[..., :5].transpose(2, 0, 1)
        target = tmp_path / "maps" / path.relative_to(tmp_path / "train").with_suffix(".pt")
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.save(torch.from_numpy(np.stack([random.normal(3, 4, (5, 2, 3)), ids])).float(), target)
    torch.save(torch.zeros(1), tmp_path / "maps" / "stranger.pt")
    return tmp_path / "store", tmp_path / "maps"


def import_options(store, maps):
    given = {"store": store, "dataset": "imagenet", "source": maps, "teacher": "l2-475", "shard-size": 4}
    return ["import-label-maps", *(text for name, value in given.items() for text in (f"--{name}", str(value)))]


def import_unbroken(store, maps):
    """Import without Prefect with the parameters of `import_options`; return the version."""
    from labelmill.tasks.label_map_files.import_job import commit_import, prepare_import
    from labelmill.tasks.label_map_files.import_shard import import_shard

    prepared = prepare_import(
        ImportLabelMapsParameters(store=str(store), dataset="imagenet", source=str(maps), teacher="l2", shard_size=4)
    )
    return commit_import(prepared, [import_shard(prepared.job, shard) for shard in prepared.shards])


@pytest.mark.prefect
def test_import_then_export_by_the_command_line(tmp_path, imagenet, run):
    store, maps = imagenet
    code, shown, err = run(*import_options(store, maps))
    assert code == 0, err
    assert (shown["table"], shown["images"], shown["done"]) == ("imagenet.label_maps, version 1", "60", "59")
    assert shown["missing"] == "1"
    assert shown["files without an image"] == "1 of 60, for example stranger.pt"
    assert shown["map"].startswith("2x3 cells, top 5 of 1000 classes")
    assert re.fullmatch(r"[\d.]+% of 59", shown["pooled class is the label"])
    assert err.count("60 of 60 maps") == 1

    export = ("export-label-maps", "--store", store, "--table", "imagenet.label_maps", "--out", tmp_path / "out")
    code, shown, err = run(*export)
    assert code == 0, err
    assert (shown["images"], shown["done"], shown["missing"]) == ("60", "59", "1")
    assert shown["files"] == "59 written, 0 replaced, 0 as they were"
    assert shown["tensor"].startswith("float32 [2, 5, 2, 3]: as imported logits")
    assert len(list((tmp_path / "out").rglob("*.pt"))) == 59


@pytest.mark.drill
@pytest.mark.prefect
def test_import_killed_goes_on_and_ends_with_the_same_parts(tmp_path, imagenet, start_cli, run, receipts, wait_for):
    store, maps = imagenet
    shutil.copytree(store, tmp_path / "unbroken")
    unbroken = import_unbroken(tmp_path / "unbroken", maps)
    process = start_cli(*import_options(store, maps))
    wait_for(lambda: len(receipts(store)) >= 3, process)
    process.kill()
    process.wait()
    left = len(receipts(store))
    assert left < 15
    assert not open_store(store).table("imagenet.label_maps").numbers()

    code, _, err = run(*import_options(store, maps))
    assert code == 0, err
    assert f"{left * 4} done before" in err
    table = open_store(store).table("imagenet.label_maps")
    assert table.version().parts == unbroken.parts
    assert verify_version(table).problems == ()


@pytest.mark.drill
@pytest.mark.prefect
def test_export_killed_goes_on_and_leaves_every_file_whole(tmp_path, imagenet, start_cli, run, wait_for):
    store, maps = imagenet
    import_unbroken(store, maps)
    out = tmp_path / "out"
    export = ("export-label-maps", "--store", store, "--table", "imagenet.label_maps", "--out", out)
    process = start_cli(*export)
    wait_for(lambda: len(list(out.rglob("n*.pt"))) >= 3, process)
    process.kill()
    process.wait()
    left = list(out.rglob("n*.pt"))
    assert all(torch.load(path).shape == (2, 5, 2, 3) for path in left)
    assert len(left) < 59

    code, shown, err = run(*export)
    assert code == 0, err
    assert shown["files"] == f"{59 - len(left)} written, 0 replaced, {len(left)} as they were"


def exit_code_of(capsys, *options):
    with pytest.raises(SystemExit) as ended:
        main(["run", *map(str, options)])
    return ended.value.code, capsys.readouterr().err


GOOD = {
    "import-label-maps": {"store": "/s", "dataset": "imagenet", "source": "/m", "teacher": "l2"},
    "export-label-maps": {"store": "/s", "table": "imagenet.label_maps", "out": "/o"},
}


@pytest.mark.parametrize(
    ("flow", "field", "value", "said"),
    [
        ("import-label-maps", "source", "s3://bucket", "not supported"),
        ("import-label-maps", "teacher", "", "at least 1 character"),
        ("import-label-maps", "num-classes", "0", "greater than or equal to 1"),
        ("import-label-maps", "input-size", "475x", "expected pixels"),
        ("import-label-maps", "shard-size", "0", "greater than or equal to 1"),
        ("export-label-maps", "table", "label_maps", "expected dataset.table"),
        ("export-label-maps", "out", " ", "expected a path"),
        ("export-label-maps", "version", "0", "greater than or equal to 1"),
    ],
)
def test_run_bad_value_is_refused_at_once_in_one_line(capsys, monkeypatch, flow, field, value, said):
    monkeypatch.setattr("labelmill.cli_run.prefect_api", None)
    given = {**GOOD[flow], field: value}
    code, err = exit_code_of(capsys, flow, *(text for name, text in given.items() for text in (f"--{name}", text)))
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(f"labelmill: --{field}: ")
    assert said in err


@pytest.mark.parametrize("flow", sorted(GOOD))
def test_run_help_has_every_field_with_its_description(capsys, monkeypatch, flow):
    from labelmill.flows.registry import FLOWS

    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit):
        main(["run", flow, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for name, field in FLOWS[flow].parameters.model_fields.items():
        assert f"--{name.replace('_', '-')}" in text
        assert " ".join(field.description.split()) in text


def test_flows_are_imported_without_torch():
    """Listing and checking flows must not cost seconds."""
    code = "import sys, labelmill.flows.label_map_files; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, check=False)
    assert done.returncode == 0
