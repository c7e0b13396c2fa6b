"""How fast is evaluation beside other libraries: k-NN of 1,024 videos among 16,384, and the neighbours behind it?"""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from scalefast.evaluation.knn import knn_predict
from scalefast.evaluation.topk import nearest_rows

K, TEMPERATURE = 20, 0.07


@pytest.fixture
def data(smaller):
    train, test, dim, classes = (64, 16, 24, 4) if smaller else (16384, 1024, 1280, 400)
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(classes, dim, generator=generator)
    labels = [torch.randint(classes, (count,), generator=generator) for count in (train, test)]
    sets = [centres[y] + 4 * torch.randn(len(y), dim, generator=generator) for y in labels]
    return sets[0], labels[0], sets[1]


def test_knn(benchmark, side_by_side, data):
    train, labels, test = data

    def scikit():
        from sklearn.neighbors import KNeighborsClassifier

        def weights(distances):  # of unit vectors: |a - b|^2 = 2 - 2 cos
            return np.exp((1 - distances**2 / 2) / TEMPERATURE)

        def run():
            gallery, queries = (F.normalize(x - x.mean(0), dim=1).numpy() for x in (train, test))
            fitted = KNeighborsClassifier(K, weights=weights, algorithm="brute").fit(gallery, labels.numpy())
            return torch.from_numpy(fitted.predict(queries))

        return run

    made, absent = side_by_side.available({"scikit-learn, brute force": scikit})

    def ours():
        return knn_predict(train, labels, test, k=K, temperature=TEMPERATURE)

    for peer in made.values():
        assert (ours() == peer()).float().mean() > 0.99  # ties aside
    benchmark.extra_info.update(threads=torch.get_num_threads(), load=os.getloadavg()[0])
    side_by_side.race(benchmark, ours, made, absent=absent, rounds=3)


def test_neighbours(benchmark, side_by_side, data):
    gallery, _, queries = data
    gallery, queries = F.normalize(gallery, dim=1), F.normalize(queries, dim=1)

    def faiss():
        import faiss

        index = faiss.IndexFlatIP(gallery.shape[1])
        index.add(gallery.numpy())
        return lambda: index.search(queries.numpy(), K)[1]

    def torch_topk():
        return lambda: (queries @ gallery.T).topk(K, dim=1).indices

    made, absent = side_by_side.available(
        {"faiss, exact": faiss, "torch.topk of the whole matrix": torch_topk}
    )

    def ours():
        return nearest_rows(queries, gallery, k=K)[1]

    for peer in made.values():
        assert (ours() == torch.as_tensor(peer())).float().mean() > 0.999  # roundings of different products
    benchmark.extra_info.update(threads=torch.get_num_threads(), load=os.getloadavg()[0])
    side_by_side.race(benchmark, ours, made, absent=absent, rounds=3)
