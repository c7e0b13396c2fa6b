"""Mean, std and size from the JSON files that checkpoints carry, in all the forms that they have had."""

from __future__ import annotations

import json

import pytest

from scalefast.backbones.preprocessing import read_preprocessing
from scalefast.errors import DataError, InputError

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
STATED = {"image_mean": MEAN, "image_std": STD}


def write(folder, name="preprocessor_config.json", **values):
    (folder / name).write_text(json.dumps(values))
    return folder


@pytest.mark.parametrize(
    ("values", "size"),
    [
        ({"crop_size": {"height": 224, "width": 224}, "size": {"shortest_edge": 256}}, 224),
        ({"crop_size": 256, "size": {"shortest_edge": 292}}, 256),
        ({"size": 224}, 224),  # as the first checkpoints have it
        ({"size": {"height": 384, "width": 384}, "do_center_crop": False}, 384),
        (
            {"do_center_crop": False, "crop_size": {"height": 1, "width": 1}, "size": {"shortest_edge": 96}},
            96,
        ),
        ({}, None),
    ],
)
def test_size(tmp_path, values, size):
    read = read_preprocessing(write(tmp_path, **STATED, **values))
    assert read.size == size
    assert (read.mean, read.std) == (tuple(MEAN), tuple(STD))


def test_the_video_file_goes_first_and_combined_ones_are_read(tmp_path):
    combined = {"image_mean": [0.1] * 3, "image_std": [1] * 3}
    write(tmp_path, "processor_config.json", video_processor=combined, processor_class="X")
    assert read_preprocessing(tmp_path).mean == (0.1, 0.1, 0.1)
    write(tmp_path, "preprocessor_config.json", image_mean=[0.2] * 3, image_std=[1] * 3)
    assert read_preprocessing(tmp_path).mean == (0.2, 0.2, 0.2)
    write(tmp_path, "video_preprocessor_config.json", image_mean=[0.3] * 3, image_std=[1] * 3)
    assert read_preprocessing(tmp_path).mean == (0.3, 0.3, 0.3)
    assert read_preprocessing(tmp_path).file.name == "video_preprocessor_config.json"


@pytest.mark.parametrize(
    "values",
    [
        STATED | {"do_normalize": True, "do_rescale": True, "rescale_factor": 0.00392156862745098},
        {"do_normalize": False},
        STATED | {"do_rescale": False},  # the network saw 0..255
        STATED | {"rescale_factor": 1 / 127.5},
    ],
    ids=["usual", "no-normalisation", "no-rescaling", "other-factor"],
)
def test_the_same_pixels_as_the_stated_steps(tmp_path, values):
    read = read_preprocessing(write(tmp_path, **values))
    for level in (0, 1, 100, 255):
        pixel = level * values.get("rescale_factor", 1 / 255) if values.get("do_rescale", True) else level
        for channel in range(3):
            stated = (pixel - MEAN[channel]) / STD[channel] if values.get("do_normalize", True) else pixel
            got = (level / 255 - read.mean[channel]) / read.std[channel]
            assert got == pytest.approx(stated, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "states no image_mean and no image_std; expected 3 numbers each"),
        ({"image_mean": MEAN}, "states no image_std"),
        ({"image_mean": 0.5, "image_std": STD}, r"image_mean: mean must be 3 finite numbers .*, got 0\.5"),
        ({"image_mean": MEAN, "image_std": [0.2, 0.2, 0]}, "std must be positive"),
        (STATED | {"size": {"height": 224, "width": 256}}, "expected a square size in pixels, found"),
        (STATED | {"crop_size": "big"}, "expected a square size in pixels, found 'big'"),
        (STATED | {"rescale_factor": 0}, "rescale_factor must be a positive number, got 0"),
    ],
)
def test_what_is_not_stated_is_refused(tmp_path, values, message):
    with pytest.raises(InputError, match=message) as error:
        read_preprocessing(write(tmp_path, **values))
    assert "preprocessor_config.json" in str(error.value)


def test_no_file_is_refused_with_an_example(tmp_path):
    with pytest.raises(
        InputError, match=r"no video_preprocessor_config\.json or preprocessor_config\.json, so the mean"
    ):
        read_preprocessing(tmp_path)


def test_broken_json_is_refused(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(DataError, match=r"preprocessor_config\.json: expected a JSON file"):
        read_preprocessing(tmp_path)
