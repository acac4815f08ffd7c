"""Choosing among pseudo labels and reviewing labels by the command line, under Prefect."""

import csv
import io
import re

import pyarrow as pa
import pytest
from PIL import Image

from labelmill.schemas.classes import ClassList, ClassName
from labelmill.schemas.pseudo_labels import PSEUDO_LABELS_SCHEMA
from labelmill.schemas.versions import Lineage
from labelmill.tasks.store import open_store

LINEAGE = Lineage(
    code="0", flow="test", parameters={}, parameters_digest="", inputs={}, time="2026-01-01T00:00:00Z", host="h"
)


def facts(said):
    return dict(re.findall(r"^  +(\S.*?)  +(.*)$", said, re.MULTILINE))


def predict(store, labels):
    """Store pseudo labels (image_id, class, confidence) of cats (0) and dogs (1)."""
    rows = [
        {
            "image_id": image_id, "split": "all", "pseudo_class": number, "confidence": confidence,
            "class_ids": [number, 1 - number], "probabilities": [confidence, 1 - confidence],
            "label": int(image_id.startswith("dogs")), "status": "done",
        }
        for image_id, number, confidence in labels
    ]  # fmt: skip
    table = open_store(store).table("pets.pseudo_labels")
    classes = ClassList(classes=(ClassName(name="cats"), ClassName(name="dogs")), source="test")
    table.replace(
        [table.write_part(pa.Table.from_pylist(rows, schema=PSEUDO_LABELS_SCHEMA), key="0" * 20)],
        schema=PSEUDO_LABELS_SCHEMA, metadata={"classes": classes.model_dump(mode="json")}, lineage=LINEAGE,
    )  # fmt: skip


@pytest.mark.prefect
def test_run_select_report_disagreements_verdicts_tell_what_they_did(tmp_path, run_apart):
    for number in range(4):
        folder = tmp_path / "pictures" / ("cats" if number % 2 else "dogs")
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6), (60 * number, 0, 255)).save(folder / f"{number}.png")
    store = tmp_path / "store"
    given = ("--store", store, "--dataset", "pets")
    assert run_apart("run", "ingest-folder", "--source", tmp_path / "pictures", *given, "--split", "all")[0] == 0
    predict(store, [("dogs/0.png", 0, 0.9), ("cats/1.png", 0, 0.95), ("dogs/2.png", 1, 0.8), ("cats/3.png", 0, 0.6)])

    code, out, err = run_apart("run", "select", *given, "--threshold", 0.7, "--quota", 2, "--temperature", 0.5)
    told = facts(out)
    assert (code, told["done"], told["below_threshold"]) == (0, "3", "1"), err
    assert told["an epoch"] == "4 images of 2 classes"
    assert told["classes below the quota"] == "1, filled up by copies"
    assert told["precision of known labels"] == "66.67% of 3"

    code, out, err = run_apart("run", "pseudo-report", *given, "--thresholds", "0.5,0.9")
    assert (code, facts(out)["τ = 0.9"]) == (0, "2 images (50.0%), 1 classes, balance 0.000, precision 50.0% of 2"), err
    assert "<svg" in open_store(store).table("pets.pseudo_label_report").files.read("reports/v1.html").decode()

    page = tmp_path / "doubts.html"
    code, out, err = run_apart("run", "disagreements", *given, "--report", page)
    assert (code, facts(out)["done"], facts(out)["agreed"]) == (0, "1", "3"), err
    assert page.read_text().count("data:image/jpeg") == 1
    [line] = csv.DictReader(io.StringIO((tmp_path / "doubts.csv").read_text()))
    assert (line["image_id"], line["label_name"], line["suggested_name"]) == ("dogs/0.png", "dogs", "cats")
    filled = tmp_path / "filled.csv"
    filled.write_text((tmp_path / "doubts.csv").read_text().replace("0.9000,,", "0.9000,suggested,"))
    code, out, err = run_apart("run", "verdicts", *given, "--csv", filled)
    assert (code, facts(out)["changed"], facts(out)["table"]) == (0, "1", "pets.images, version 2"), err


def test_run_wrong_parameters_are_refused_at_once_by_name(tmp_path, run):
    store = tmp_path / "store"
    predict(open_store(store, create=True).root, [("dogs/0.png", 0, 0.9)])
    given = ("--store", store, "--dataset", "pets")
    for flow, options, words in (
        ("select", ("--threshold", 1.5), "--threshold: "),
        ("select", ("--temperature", 0), "--temperature: "),
        ("select", ("--labels-table", "soft_labels"), "pets.soft_labels: no such table"),
        ("pseudo-report", ("--thresholds", "0.5,x"), "--thresholds: '0.5,x': expected numbers"),
        ("pseudo-report", ("--thresholds", "2"), "--thresholds: '2': expected thresholds from 0 to 1"),
        ("pseudo-report", ("--report", tmp_path), "report: "),
        ("disagreements", (), "pets.images: no such table"),
        ("disagreements", ("--report", tmp_path / "a.csv"), "report: "),
        ("verdicts", ("--csv", "gone.csv"), "pets.images: no such table"),
    ):
        code, out, err = run("run", flow, *given, *options)
        assert (code, out) == (2, ""), options
        assert words in err, err
