"""Trainers read the anchors that are written for them."""

import re

import numpy as np
import torch
import yaml

from labelmill.tasks.anchors.texts import write_texts

SIZES = np.array([[10.25, 13], [16, 30], [33, 23.123], [30, 61]])


def test_write_texts_trainers_read_the_anchors():
    texts = write_texts(SIZES, [8, 8, 32, 32], input_size=(384, 640))
    assert all("384 x 640 (height x width)" in text for text in texts.values())
    assert yaml.safe_load(texts["ultralytics.yaml"]) == {"anchors": [[10.25, 13, 16, 30], [33, 23.12, 30, 61]]}
    found = {}
    exec(texts["mmdetection.py"].replace("anchor_generator=dict", "found['m'] = dict"), {"found": found})
    assert found["m"]["base_sizes"] == [[(33, 23.12), (30, 61)], [(10.25, 13), (16, 30)]]
    assert found["m"]["strides"] == [32, 8]
    darknet = dict(re.findall(r"^(\w+) = (.*)$", texts["darknet.cfg"], re.MULTILINE))
    assert [float(x) for x in darknet["anchors"].split(",")] == [10.25, 13, 16, 30, 33, 23.12, 30, 61]
    assert darknet["num"] == "4"
    assert "stride 32: mask = 2,3" in texts["darknet.cfg"]
    assert "0.32031,0.40625," in texts["darknet.cfg"]


def test_write_texts_torchvisions_generator_makes_boxes_of_these_sizes():
    from torchvision.models.detection.image_list import ImageList

    names = {}
    exec(write_texts(SIZES, [8, 8, 32, 32], input_size=(64, 64))["torchvision.py"], names)
    generator = names["generator"]
    assert generator.num_anchors_per_location() == [2, 2]
    images = ImageList(torch.zeros(1, 3, 64, 64), [(64, 64)])
    [boxes] = generator(images, [torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 2, 2)])
    sizes = boxes[:, 2:] - boxes[:, :2]
    torch.testing.assert_close(sizes[:2], torch.tensor([[10.25, 13], [16, 30]]))
    torch.testing.assert_close(sizes[-2:], torch.tensor([[33, 23.12], [30, 61]]))


def test_write_texts_unsplit_anchors_are_one_level():
    texts = write_texts(SIZES, [None] * 4, input_size=(416, 416))
    assert len(yaml.safe_load(texts["ultralytics.yaml"])["anchors"]) == 1
    assert "mask" not in texts["darknet.cfg"]
    assert "a guess" in texts["mmdetection.py"]
