"""What a backbone takes of a data set, and that the recipe says it."""

from __future__ import annotations

from pathlib import Path

import pytest

from scalefast.backbones import REGISTRY, load_backbone, recipe_for
from scalefast.backbones.recipes import DATASET_RULES
from scalefast.cli.extract import Args, extraction_recipe
from scalefast.datasets import DATASETS
from scalefast.errors import InputError


def test_the_paper_on_kinetics_and_something_something():
    k400 = recipe_for("videomae-b", "kinetics400")
    assert (k400.train.num_frames, k400.train.stride, k400.train.size, k400.train.clips) == (16, 4, 224, 16)
    assert (k400.train.short_side, k400.train.flip) == ((256, 320), True)
    assert (k400.test.clips, k400.test.spatial_crops, k400.positions) == (15, 3, "paper")
    ssv2 = recipe_for("videomae-b", "ssv2")
    assert (ssv2.train.stride, ssv2.train.flip, ssv2.test.clips, ssv2.test.stride) == (2, False, 6, 2)


def test_long_clips_keep_their_stride_and_long_videos_their_seconds():
    assert recipe_for("vjepa2-l", "ssv2").train.stride == 4
    assert recipe_for("svt-b", "ssv2").train.stride == 16
    assert recipe_for("r3d-tiny", "lvu").positions == "seconds"


def test_a_loaded_backbone_and_its_spec_give_the_same():
    backbone = load_backbone("r3d-tiny")
    assert (
        recipe_for(backbone, "ucf101")
        == recipe_for(backbone.spec, "ucf101")
        == recipe_for("r3d-tiny", "ucf101")
    )
    assert recipe_for(backbone).dataset == "any videos"


def test_it_says_what_it_does():
    assert str(recipe_for("rhobyol-slow-r50", "ssv2")) == (
        "rhobyol-slow-r50 on Something-Something v2: 16 frames of stride 2 at 30 fps, 224 x 224 pixels; mean / std "
        "0.45, 0.45, 0.45 / 0.225, 0.225, 0.225; mean over time and space of the last stage. Training: 16 random "
        "clips, short side 256 to 320, never mirrored. Test: 2 x 3 views of 224 pixels. Positions: paper."
    )


@pytest.mark.parametrize("name", REGISTRY)
def test_every_name_has_a_recipe_for_every_data_set(name):
    for dataset in DATASETS:
        recipe = recipe_for(name, dataset)
        assert recipe.train.size == recipe.test.size and recipe.train.stride >= 1


def test_the_data_sets_are_those_that_can_be_read():
    assert set(DATASET_RULES) == set(DATASETS)
    assert {name: rule.title for name, rule in DATASET_RULES.items()} == {
        n: d.title for n, d in DATASETS.items()
    }


def test_unknown_names_are_refused():
    with pytest.raises(InputError, match="no data set is named 'k400'; known: kinetics400"):
        recipe_for("r3d-tiny", "k400")
    with pytest.raises(InputError, match="no backbone is named 'r3d'"):
        recipe_for("r3d")


def options(**changes):
    return Args(videos="videos", backbone="videomae-b", out=Path("store"), **changes)


def test_extract_does_what_the_recipe_says():
    """`--backbone videomae-b --dataset ssv2` needs nothing else, and options win."""
    backbone = load_backbone("r3d-tiny")
    plain = extraction_recipe(options(), backbone)
    assert (plain.train.stride, plain.train.flip, plain.test.clips, plain.positions) == (4, True, 15, "paper")
    ssv2 = extraction_recipe(options(dataset="ssv2"), backbone)
    assert (ssv2.train.stride, ssv2.train.flip, ssv2.test.stride, ssv2.test.clips) == (2, False, 2, 6)
    assert extraction_recipe(options(dataset="lvu"), backbone).positions == "seconds"
    own = extraction_recipe(
        options(dataset="ssv2", stride=3.0, temporal=4, spatial=1, clips=5, positions="fraction"), backbone
    )
    assert (own.train.stride, own.train.clips, own.test.clips, own.positions) == (3.0, 5, 4, "fraction")
    assert "5 random clips" in str(own) and "4 x 1 views" in str(own)
    assert not extraction_recipe(options(no_flip=True), backbone).train.flip
