"""Small random networks of the transformers library in folders, as `save_pretrained` writes them."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small run faster on one thread, and the rest of the suite keeps its setting."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def released() -> Any:
    """The package `released` beside this file: random checkpoints in their authors' layouts."""
    folder = Path(__file__).with_name("released")
    spec = importlib.util.spec_from_file_location(
        "released", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["released"] = module  # its parts import each other by this name
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def clips() -> Callable[..., torch.Tensor]:
    """`clips(backbone, n, seed=0)`: random uint8 clips of the backbone's form."""

    def draw(backbone: Any, n: int, seed: int = 0) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        shape = (n, backbone.num_frames, backbone.size, backbone.size, 3)
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)

    return draw


def _config(transformers: Any, family: str, *, mean_pooling: bool) -> Any:
    small = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    if family == "videomae":
        decoder = {
            "decoder_hidden_size": 16,
            "decoder_num_hidden_layers": 1,
            "decoder_num_attention_heads": 2,
        }
        sizes = {"intermediate_size": 48, "decoder_intermediate_size": 32, "image_size": 32, "patch_size": 8}
        return transformers.VideoMAEConfig(
            **small, **decoder, **sizes, num_frames=4, use_mean_pooling=mean_pooling
        )
    if family == "timesformer":
        return transformers.TimesformerConfig(
            **small, intermediate_size=48, image_size=32, patch_size=8, num_frames=4
        )
    predictor = {"pred_hidden_size": 24, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 1}
    return transformers.VJEPA2Config(
        **small,
        **predictor,
        crop_size=32,
        patch_size=8,
        frames_per_clip=4,
        mlp_ratio=2.0,
        num_pooler_layers=1,
    )


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Any]]:
    """`originals(class_name)`: (folder, model) with every weight random; the folder must not be changed."""
    transformers = pytest.importorskip("transformers")
    made: dict[str, tuple[Path, Any]] = {}

    def make(class_name: str) -> tuple[Path, Any]:
        if class_name not in made:
            family = next(
                f for f in ("videomae", "timesformer", "vjepa2") if class_name.lower().startswith(f)
            )
            with torch.random.fork_rng():
                torch.manual_seed(len(class_name))
                # as published: fine-tuned VideoMAE has fc_norm, pretrained VideoMAE a final layernorm
                config = _config(transformers, family, mean_pooling="Classification" in class_name)
                model = getattr(transformers, class_name)(config).eval()
                with torch.no_grad():
                    for (
                        parameter
                    ) in model.parameters():  # initial biases and norms are constants: a swap would hide
                        parameter.add_(0.2 * torch.randn(parameter.shape))
            folder = tmp_path_factory.mktemp("models") / class_name
            model.save_pretrained(folder)
            states = {"image_mean": MEAN, "image_std": STD, "do_normalize": True, "do_rescale": True}
            crop = {
                "do_center_crop": True,
                "crop_size": {"height": 32, "width": 32},
                "size": {"shortest_edge": 36},
            }
            name = "video_preprocessor_config.json" if family == "vjepa2" else "preprocessor_config.json"
            (folder / name).write_text(json.dumps(states | crop))
            made[class_name] = (folder, model)
        return made[class_name]

    return make


@pytest.fixture
def copied(originals: Callable[[str], tuple[Path, Any]], tmp_path: Path) -> Callable[[str], Path]:
    """`copied(class_name)`: a copy of such a folder that a test may change."""

    def copy(class_name: str) -> Path:
        return Path(shutil.copytree(originals(class_name)[0], tmp_path / class_name))

    return copy
