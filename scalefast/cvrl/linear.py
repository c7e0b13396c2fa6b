"""Linear evaluation of clip features: every clip judged alone, and every video by the mean of its views.

CVRL's protocol on stored features: a linear classifier on L2-normalised features, trained on the clips of the
training videos, judged on test views (published: 32 frames of stride 2, 256 pixels, 10 x 3 views:
`load_backbone(folder, num_frames=32, size=256)` and `test_recipe(temporal=10)`). The classifier is solved to its
optimum with a penalty chosen on a validation split of the training videos, where CVRL trains 100 epochs of SGD.

Legend: `N` videos, `V` clips of each, `D` feature.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from scalefast.cvrl._finetune import ClipAccuracy
from scalefast.errors import InputError
from scalefast.evaluation import draw_shots, fit_linear_probe
from scalefast.evaluation.data import check_splits, class_labels
from scalefast.features import FeatureStore

__all__ = ["evaluate_linear"]


def evaluate_linear(
    train: FeatureStore, test: FeatureStore, *, label_share: float = 1.0, seed: int = 0
) -> ClipAccuracy:
    """Accuracy of a linear classifier on one backbone's clip features.

    Args:
        train, test: stores of the same backbone, each with one number of clips a video and one label a video.
        label_share: share of each class's training videos that keep their labels; .01 and .1 are CVRL's.
        seed: of that draw, and of the validation split.

    Raises:
        InputError: stores that do not fit each other, without labels or with different numbers of clips; a share
            outside (0, 1].
    """
    check_splits(train, test)
    kept = torch.ones(len(train), dtype=torch.bool)
    labels = class_labels(train)
    if label_share != 1.0:
        kept = draw_shots(labels, float(label_share), draw=0, seed=seed)
    clips, wanted = _clips(train)[kept], labels[kept]
    rows = torch.arange(len(clips)).repeat_interleave(clips.shape[1])
    probe = fit_linear_probe(clips.flatten(0, 1), wanted, videos=rows, seed=seed)
    views, truth = _clips(test), class_labels(test)
    likely = probe.logits(views.flatten(0, 1)).softmax(1).unflatten(0, views.shape[:2])
    by_clip, by_video = probe.classes[likely.argmax(2)], probe.classes[likely.mean(1).argmax(1)]
    return ClipAccuracy(
        clip=(by_clip == truth[:, None]).double().mean().item(),
        video=(by_video == truth).double().mean().item(),
    )


def _clips(store: FeatureStore) -> torch.Tensor:
    """float32 [N, V, D], each of length 1."""
    if store.clips_per_video is None:
        raise InputError(
            f"{store.path}: its videos have different numbers of clips; extract the same of each"
        )
    return F.normalize(store.load()[0].float(), dim=2)
