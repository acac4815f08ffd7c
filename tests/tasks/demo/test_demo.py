"""The whole demo, from the command line."""

import os
import re
import subprocess
import sys

import pytest

import labelmill
from labelmill.cli_demo import run_demo
from labelmill.tasks.demo.compose import plan_scenes
from labelmill.tasks.demo.crops import draw_known_crops, score_crops
from labelmill.tasks.demo.questions import answer, ask_questions


def run(folder):
    command = [sys.executable, "-m", "labelmill", "demo", "--out", "out"]
    return subprocess.run(command, cwd=folder, env=os.environ, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def first(tmp_path_factory, demo_packages):
    folder = tmp_path_factory.mktemp("demo")
    return folder, run(folder)


@pytest.mark.prefect
def test_demo_pooled_labels_name_what_is_in_a_crop_more_often_than_the_single_label_does(first):
    maps = labelmill.LabelMaps(labelmill.open_store(first[0] / "out" / "store"), "demo.label_maps")
    crops = draw_known_crops(plan_scenes())
    default, paper = (score_crops(maps, crops, mode) for mode in ("default", "paper"))
    assert default.named > 1.2 * default.label_names
    assert default.mean_prob > 1.5 * paper.mean_prob
    said = f"Of {len(crops)} crops the pooled label names the content in {default.named / len(crops):.1%}"
    assert said in " ".join(first[1].split())


@pytest.mark.prefect
def test_demo_shows_the_rejected_image_the_answers_and_what_to_type_next(first):
    folder, said = first
    assert re.search(r"rejected +1\n +truncated +1\n", said)
    store = labelmill.open_store(folder / "out" / "store")
    for question in ask_questions(plan_scenes()[0].image_id):
        names, rows = answer(store, question)
        assert rows
        assert names[0] in said
        assert question.query.splitlines()[0] in said
    assert 'labelmill sql out/store "SELECT' in said
    assert "labelmill run relabel --store STORE" in said
    assert (folder / "out" / "index.html").read_text().count("<article") == 63


@pytest.mark.drill
@pytest.mark.prefect
def test_demo_second_run_into_the_same_folder_reuses_all_and_says_the_same(first):
    folder, said = first
    again = run(folder)
    start, end = "3. Ask the store", "Done in"
    assert again[again.index(start) : again.index(end)] == said[said.index(start) : said.index(end)]
    store = labelmill.open_store(folder / "out" / "store")
    assert [len(store.versions(name)) for name in ("demo.images", "demo.label_maps")] == [1, 1]


def test_run_demo_out_that_is_a_url_is_refused_in_one_line(capsys):
    assert run_demo("s3://bucket/demo") == 2
    assert capsys.readouterr().err.count("\n") == 1
