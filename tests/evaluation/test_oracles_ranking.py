"""The ranking behind k-NN, retrieval and search, against scikit-learn where products are large and tiles are many."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from scalefast.evaluation import knn_predict, nearest_rows


def unit(rows: int, dim: int, *, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


@pytest.mark.parametrize("tile", [700, 16384])
def test_large_products_rank_as_sklearn(tile: int) -> None:
    """1.3e8 multiplications: by the product that large sizes take, in one tile and in several."""
    queries, gallery = unit(97, 640, seed=1), unit(2111, 640, seed=2)
    values, rows = nearest_rows(queries, gallery, k=20, gallery_rows=tile, query_rows=tile)
    near = NearestNeighbors(n_neighbors=20, metric="cosine", algorithm="brute").fit(gallery.double().numpy())
    distance, expected = near.kneighbors(queries.double().numpy())
    np.testing.assert_allclose(1 - distance, values.numpy(), atol=2e-6)
    # Where two similarities are nearer than fp32 can tell, either order is right.
    clear = np.diff(distance, axis=1).min(1) > 2e-6
    assert clear.mean() > 0.8
    np.testing.assert_array_equal(rows.numpy()[clear], expected[clear])


def test_copies_in_a_large_product_come_in_the_order_of_their_rows() -> None:
    """Also among the last columns, which a blocked product computes in another way."""
    queries, gallery = unit(80, 640, seed=3), unit(2003, 640, seed=4)
    copies = [5, 6, 63, 64, 1000, 1999, 2001, 2002]
    gallery[copies] = gallery[5].clone()
    queries[7] = gallery[5]
    values, rows = nearest_rows(queries, gallery, k=9)
    assert rows[7, :8].tolist() == copies
    assert values[7, :8].unique().numel() == 1


def test_knn_on_many_videos_is_that_of_sklearn() -> None:
    random = torch.Generator().manual_seed(5)
    centres = torch.randn(40, 128, generator=random)
    known, asked = (torch.randint(40, (n,), generator=random) for n in (3000, 400))
    train, test = (
        centres[labels] + 2.5 * torch.randn(len(labels), 128, generator=random) for labels in (known, asked)
    )
    first, second = (F.normalize((x - x.mean(0)).double(), dim=1).numpy() for x in (train, test))
    votes = KNeighborsClassifier(20, weights=lambda distance: np.exp((1 - distance**2 / 2) / 0.07))
    expected = votes.fit(first, known.numpy()).predict(second)
    found = knn_predict(train, known, test).numpy()
    assert (found == expected).mean() >= 0.995, "a vote may be a tie to the last bit"
    assert 0.5 < (found == asked.numpy()).mean() < 0.999, "the set is neither trivial nor hopeless"
