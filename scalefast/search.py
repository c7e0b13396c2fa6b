"""Find the videos nearest to a video, exactly.

Legend: `N` videos, `V` clips, `D` backbone feature, `T` frames, `S` pixels a side.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from scalefast.errors import InputError, StoreError
from scalefast.evaluation._run import LoadedRun, default_device, load, open_store
from scalefast.evaluation.representations import Representation, represent, represent_sets
from scalefast.evaluation.topk import GALLERY_ROWS

if TYPE_CHECKING:
    from scalefast.backbones import FrozenBackbone
    from scalefast.features import FeatureStore
    from scalefast.model import SCALE

__all__ = ["Neighbour", "search"]


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """One video that was found."""

    rank: int
    """1 for the nearest."""
    id: str
    """Its id in the store."""
    similarity: float
    """Cosine of the two representations, in [-1, 1]."""
    label: str | None
    """Name of its class, or the number of a class without a name; None where it has no class."""


def search(
    run: str | os.PathLike[str] | SCALE,
    store: str | os.PathLike[str] | FeatureStore,
    *,
    query: str | os.PathLike[str],
    k: int = 5,
    representation: Representation = "recommended",
    backbone: str | os.PathLike[str] | FrozenBackbone | None = None,
    device: torch.device | str | None = None,
) -> tuple[Neighbour, ...]:
    """The k videos of a store with the largest cosine similarity to a video, nearest first.

    Every video of the store is compared. Equals come in the order of the store.

    Args:
        run: run folder, folder or hub id of a saved model, or a model.
        store: where to search.
        query: id of a video of the store, which is then left out of the answer, else a video file. A file is
            decoded into clips by the store's own recipe and goes through the backbone that made the store.
        k: how many; fewer where the store holds fewer.
        representation: by which videos are compared.
        backbone: for a file, if the store's backbone cannot be found by its recorded name: its name, folder
            or hub id, or the backbone itself.
        device: where to compute; None: the GPU if there is one.

    Raises:
        InputError: the query is neither an id nor a file, or an option does not fit.
        StoreError: the store does not say how its features were made, or the backbone is another one.
        DataError: the file cannot be decoded, or a store or model is damaged.
    """
    if k < 1:
        raise InputError(f"k must be at least 1, got {k}")
    home = default_device(device)
    loaded, opened = load(run, device=home), open_store(store)
    loaded.check_store(opened)
    row = opened.ids.index(os.fspath(query)) if os.fspath(query) in opened.ids else None
    if row is None and not Path(query).is_file():
        raise InputError(_unknown_query(os.fspath(query), opened))
    asked = (
        None if row is not None else _file_vector(Path(query), loaded, opened, backbone, home, representation)
    )
    gallery = F.normalize(represent(loaded.model, opened, device=home)[representation], dim=1)
    vector = gallery[row] if row is not None else asked
    assert vector is not None
    # In fp64 and rounded, so that copies of one video are equal to the bit wherever they stand in the store.
    exact = F.normalize(vector.double(), dim=0)
    similarity = torch.cat([(rows.double() @ exact).float() for rows in gallery.split(GALLERY_ROWS)])
    order = similarity.sort(descending=True, stable=True).indices.tolist()
    found = [index for index in order[: k + 1] if index != row][:k]
    return tuple(
        Neighbour(
            rank=place,
            id=opened.ids[index],
            similarity=min(max(similarity[index].item(), -1.0), 1.0),
            label=class_name(opened, index),
        )
        for place, index in enumerate(found, start=1)
    )


def class_name(store: FeatureStore, row: int) -> str | None:
    """Name of a video's class (its number where classes have no names); None without one class a video."""
    if store.labels is None or store.labels.ndim != 1 or store.labels.dtype != torch.int64:
        return None
    label = int(store.labels[row])
    return store.classes[label] if store.classes is not None else str(label)


def _unknown_query(query: str, store: FeatureStore) -> str:
    import difflib

    near = difflib.get_close_matches(query, store.ids, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"ids look like {store.ids[0]!r}"
    return f"{query!r} is neither a file nor the id of a video in {store.path}; {hint}"


def _file_vector(
    path: Path,
    run: LoadedRun,
    store: FeatureStore,
    backbone: str | os.PathLike[str] | FrozenBackbone | None,
    device: torch.device,
    representation: Representation,
) -> Tensor:
    """Representation of a video file, made as the store's videos were."""
    from scalefast.video import ClipRecipe, load_clips, normalize_positions

    made_with = store.provenance
    if not isinstance(made_with.get("recipe"), dict) or not isinstance(made_with.get("backbone"), dict):
        raise StoreError(
            f"{store.path}: this store does not record clip recipe and backbone (it was not made by "
            f"`scalefast extract`), so a video file cannot be made comparable to it; give the id of a video "
            f"of the store"
        )
    encoder = _backbone(backbone, store, device)
    loaded = load_clips(
        path, ClipRecipe.from_dict(made_with["recipe"]), seed=made_with.get("seed", 0), video_id=path.name
    )
    # The store's precision, so that a video that is in the store finds itself with similarity 1.
    features = encoder(loaded.clips).to(store.dtype).float()
    positions = normalize_positions(
        loaded.positions, mode=made_with.get("positions", "paper"), duration=loaded.meta.duration
    )
    with torch.inference_mode():
        sets = represent_sets(
            run.model, features[None].to(device), torch.as_tensor(positions)[None].to(device)
        )
    return sets[representation][0]


def _backbone(
    backbone: str | os.PathLike[str] | FrozenBackbone | None, store: FeatureStore, device: torch.device
) -> FrozenBackbone:
    """The backbone that made a store, and no other."""
    from scalefast.backbones import FrozenBackbone, load_backbone

    made_with: dict[str, Any] = store.provenance["backbone"]
    if isinstance(backbone, FrozenBackbone):
        encoder = backbone
    else:
        try:
            encoder = load_backbone(os.fspath(backbone or made_with["name"]), device=device)
        except InputError as error:
            if backbone is not None:
                raise
            raise InputError(
                f"{store.path} was made with the backbone {made_with['name']!r}, which cannot be found by "
                f"this name: {error}. Say where it is (--backbone FOLDER_OR_HUB_ID)"
            ) from error
    found = encoder.describe()
    if found.get("identity") != made_with.get("identity"):
        raise StoreError(
            f"{store.path} was made with the backbone {made_with['name']!r} (identity "
            f"{str(made_with.get('identity'))[:12]}), not with {found['name']!r} (identity "
            f"{str(found.get('identity'))[:12]}): other weights or another preprocessing"
        )
    return encoder
