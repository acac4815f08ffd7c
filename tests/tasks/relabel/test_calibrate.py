"""Calibration: the same images at every run, fitted once, none of them needed twice."""

import os
from dataclasses import replace

import pytest

from labelmill.schemas.errors import WorkFailed
from labelmill.tasks.relabel.calibrate import Calibration, draw_images, fit_on_images
from labelmill.tasks.relabel.cpu_engine import CpuEngine
from labelmill.tasks.relabel.job import prepare_run
from labelmill.tasks.store import open_store


def drawn_names(store, source, count):
    images = open_store(store).table("imagenet.images")
    return [os.path.basename(image.path) for image in draw_images(images, images.version(), {"train": source}, count)]


def fit(teacher, settings, images):
    return fit_on_images(CpuEngine(teacher, settings, workers=2), teacher, settings, images)


def test_draw_images_do_not_depend_on_the_order_of_rows(tmp_path, make_images, ingest):
    """The same images in other parts, in another order of ingests."""
    source = make_images(tmp_path / "train", {"n01443537": 4, "n01484850": 4}, first=5)
    ingest(source, tmp_path / "b")
    make_images(source, {"n01443537": 5, "n01484850": 5})
    ingest(source, tmp_path / "b")
    ingest(source, tmp_path / "a", chunk_size=5)
    names = drawn_names(tmp_path / "a", source, 6)
    assert drawn_names(tmp_path / "b", source, 6) == names
    assert len(set(names)) == 6
    assert drawn_names(tmp_path / "a", source, 18)[:6] == names
    assert len({name.partition("_")[0] for name in names}) == 2  # not the first ones


def test_draw_images_leave_out_rejected_images_and_other_splits(tmp_path, make_images, ingest):
    source = make_images(tmp_path / "train", {"n01443537": 4})
    (source / "n01443537" / "n01443537_1.JPEG").write_bytes(b"")
    ingest(source, tmp_path / "store")
    ingest(make_images(tmp_path / "val", {"n01443537": 2}, first=10), tmp_path / "store", split="val")
    assert sorted(drawn_names(tmp_path / "store", source, 99)) == [f"n01443537_{n}.JPEG" for n in (0, 2, 3)]


def test_calibrate_second_run_reads_back_what_the_first_fitted(imagenet, parameters_for, monkeypatch):
    first = prepare_run(parameters_for(imagenet[1])).calibration

    def no_second_fit(*_, **__):
        raise AssertionError("fitted again")

    monkeypatch.setattr("labelmill.tasks.relabel.calibrate.fit_on_images", no_second_fit)
    assert prepare_run(parameters_for(imagenet[1])).calibration == first
    assert prepare_run(parameters_for(imagenet[1], batch_size=5, workers=1)).calibration == first
    assert first.images == 8
    with pytest.raises(AssertionError, match="fitted again"):
        prepare_run(parameters_for(imagenet[1], input_size="96"))
    with pytest.raises(AssertionError, match="fitted again"):
        prepare_run(parameters_for(imagenet[1], calibration_images=9))


def test_calibrate_with_images_gone_for_a_while_is_done_again(imagenet, parameters_for):
    source, store = imagenet
    gone = sorted(source.rglob("*.JPEG"))[3]
    away = gone.rename(source.parent / "away.JPEG")
    fitted = []
    for back in (False, True):
        if back:
            away.rename(gone)
        run = prepare_run(parameters_for(store, calibration_images=21))
        run.job.engine.close()
        fitted.append(run.calibration)
    assert [calibration.images for calibration in fitted] == [20, 21]


def test_calibrate_machine_that_ends_second_takes_the_temperature_of_the_first(imagenet, parameters_for, monkeypatch):
    """Shares of one run start at once: with two temperatures their shards would never meet in a version."""
    files = open_store(imagenet[1]).table("imagenet.label_maps").files
    fits = []

    def fit_beside_another(*arguments, **options):
        fitted = fit_on_images(*arguments, **options)
        fits.append(fitted.model_copy(update={"temperature": fitted.temperature + 0.5}))
        monkeypatch.setattr("labelmill.tasks.relabel.calibrate.fit_on_images", fit_on_images)
        assert prepare_run(parameters_for(imagenet[1])).calibration == fitted
        return fits[0]

    monkeypatch.setattr("labelmill.tasks.relabel.calibrate.fit_on_images", fit_beside_another)
    assert prepare_run(parameters_for(imagenet[1])).calibration.temperature == fits[0].temperature - 0.5
    assert len(files.names("calibrations")) == 1


def test_calibrate_damaged_file_is_made_anew(imagenet, parameters_for):
    first = prepare_run(parameters_for(imagenet[1])).calibration
    files = open_store(imagenet[1]).table("imagenet.label_maps").files
    (name,) = files.names("calibrations")
    files.replace(f"calibrations/{name}", b'{"temperature": ')
    assert prepare_run(parameters_for(imagenet[1])).calibration == first
    assert Calibration.model_validate_json(files.read(f"calibrations/{name}")) == first


def test_calibrate_appended_images_leave_the_temperature_as_it_was(imagenet, make_images, ingest, parameters_for):
    source, store = imagenet
    first = prepare_run(parameters_for(store)).calibration
    make_images(source, {"n01484850": 30}, first=50)
    ingest(source, store)
    assert prepare_run(parameters_for(store)).calibration == first


def test_fit_on_images_leaves_out_what_cannot_be_read(teacher, photos, settings):
    whole = fit(teacher, settings, photos[4:])
    for image in photos[:4]:
        image.path.unlink()
    with_gaps = fit(teacher, settings, photos)
    assert with_gaps.images == whole.images == 9
    assert with_gaps.temperature == pytest.approx(whole.temperature, abs=1e-3)


def test_fit_on_images_where_the_map_is_as_sure_as_the_classifier_gives_one(teacher, photos, settings):
    """At the teacher's own size and with all classes kept there is nothing to put right."""
    native = replace(settings, input_size=teacher.preprocessing.native_size, top_k=8)
    assert fit(teacher, native, photos).temperature == pytest.approx(1.0, abs=0.01)


def test_fit_on_images_none_readable_says_why(teacher, photos, settings):
    for image in photos:
        image.path.unlink()
    with pytest.raises(WorkFailed, match=r"none of the 13 images .*; missing: No such file .*image_root"):
        fit(teacher, settings, photos)


def test_fit_on_images_of_none_says_so(teacher, settings):
    with pytest.raises(WorkFailed, match="all images were rejected when they were ingested"):
        fit(teacher, settings, [])


def test_calibration_survives_its_file(tmp_path, teacher, photos, settings):
    fitted = fit(teacher, settings, photos)
    assert Calibration.model_validate_json(fitted.model_dump_json()) == fitted


def test_prepare_run_fast_says_how_far_its_labels_are_from_fp32(imagenet, parameters_for):
    movement = prepare_run(parameters_for(imagenet[1], precision="fast", calibration_images=12)).calibration.movement
    assert movement.images == 12
    assert 0 < movement.total_variation < 0.2  # another resize at least, bfloat16 where there is one
    assert movement.same_class > 0.5


def test_prepare_run_fp32_has_nothing_to_compare_with(imagenet, parameters_for):
    assert prepare_run(parameters_for(imagenet[1])).calibration.movement is None


def test_fit_on_images_movement_of_the_same_engine_is_none_at_all(teacher, photos, settings):
    def exact():
        return CpuEngine(teacher, settings, workers=2)

    movement = fit_on_images(exact(), teacher, settings, photos, exact=exact).movement
    assert (movement.images, movement.total_variation, movement.same_class) == (13, 0.0, 1.0)
