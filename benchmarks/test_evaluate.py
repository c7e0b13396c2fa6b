"""How fast is evaluation: k-NN of 1,024 videos among 16,384 and the neighbours behind it, beside other libraries; heads
that are trained, and the penalties of the linear probe, at once and one after another."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from scalefast.evaluation._fit import train_head, train_heads
from scalefast.evaluation._heads import AttentionPooling, AttentiveProbe, ClipMLP
from scalefast.evaluation._logistic import solve_logistic
from scalefast.evaluation._training import ClipSets, Training
from scalefast.evaluation.knn import knn_predict
from scalefast.evaluation.topk import nearest_rows

K, TEMPERATURE = 20, 0.07
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


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


class ByClip(AttentiveProbe):
    """The attentive probe as it is usually written: a key and a value of every clip."""

    def _attend(self, tokens, absent):
        tokens = tokens * self.norm1.weight + self.norm1.bias
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.q(self.query).expand(len(tokens), 1, -1), *self.kv(tokens).chunk(2, dim=-1))
        )
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=~absent[:, None, None])
        return found.transpose(1, 2).flatten(1)


def biases(head):
    """`[12]`, of the last layer."""
    return list(head.parameters())[-1].detach().clone()


HEADS = {"attention": (AttentionPooling,) * 2, "attentive": (AttentiveProbe, ByClip), "mlp": (ClipMLP,) * 2}


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("width", [256, 1024])
@pytest.mark.parametrize("head", HEADS)
def test_learning_rates_of_a_head(benchmark, side_by_side, smaller, head, width, precision):
    """Two epochs for each of eight learning rates, of large heads one for each of two: 288 videos, 12 classes, in
    batches of 72, as on the demo's set."""
    if head == "mlp" and width == 1024:
        pytest.skip("the MLP sees the backbone's features alone")
    videos, rates, epochs = (
        (16, 2, 1) if smaller else (288, 2 if head == "mlp" else 8, 1 if head == "mlp" else 4)
    )
    rows = torch.randn(16 * videos, width, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    sets = ClipSets(
        rows=rows, positions=torch.zeros(len(rows), 7, device=DEVICE), lengths=torch.full((videos,), 16)
    )
    target = torch.arange(videos, device=DEVICE) % 12
    trainings = [
        Training(learning_rate=1e-3 * (i + 1), weight_decay=1e-4, epochs=epochs, batch_size=videos // 4)
        for i in range(rates)
    ]
    how = {"num_classes": 12, "seed": 0, "dtype": precision}
    ours_of, plain_of = (lambda classes, kind=kind: kind(rows, classes) for kind in HEADS[head])

    def ours():
        heads = [(ours_of, sets)]
        found = train_heads(
            heads,
            target,
            torch.arange(videos),
            [trainings],
            then=lambda i, training, head: biases(head),
            **how,
        )
        return torch.stack(found[0])

    def alone(build, dtype):
        options = {**how, "dtype": dtype}
        return lambda: torch.stack(
            [
                biases(train_head(build, sets, target, torch.arange(videos), one, **options))
                for one in trainings
            ]
        )

    benchmark.group = f"{rates} learning rates of a head, {DEVICE.type}"
    peers = {
        "one after another": alone(ours_of, precision),
        "plainly, in fp32": alone(plain_of, torch.float32),
    }
    if precision == torch.float32 and DEVICE.type == "cpu":
        torch.testing.assert_close(ours(), peers["one after another"](), atol=1e-3, rtol=1e-2)
    benchmark.extra_info.update(threads=torch.get_num_threads(), load=os.getloadavg()[0])
    side_by_side.race(benchmark, ours, peers, rounds=2)


PROBES = {
    "demo": (230, 256, 12),
    "small": (3000, 64, 20),
    "middle": (2000, 256, 50),
    "K400": (192_000, 768, 400),
}


@pytest.mark.parametrize("size", PROBES)
def test_penalties_of_the_linear_probe(benchmark, side_by_side, smaller, size):
    """Twenty penalties at the tolerance of the choice; K400: four fifths of 240,000 videos."""
    if size == "K400" and DEVICE.type == "cpu" and not smaller:
        pytest.skip("for a GPU: a pass takes minutes on a CPU")
    rows, dim, classes = (40, 6, 3) if smaller else PROBES[size]
    random = torch.Generator(device=DEVICE).manual_seed(0)
    y = torch.arange(rows, device=DEVICE) % classes
    x = torch.randn(classes, dim, generator=random, device=DEVICE)[y]
    x = x + (3 if dim < 100 else 6) * torch.randn(rows, dim, generator=random, device=DEVICE)
    x = x.double() if DEVICE.type == "cpu" else x
    weight = torch.full((rows,), 1 / rows, device=DEVICE)

    def solved(order):
        penalties = [10 ** (1 - 5 * i / 19) for i in range(20)]
        fits = solve_logistic(
            x, y, weight, num_classes=classes, penalties=penalties, tolerance=1e-3, order=order
        )
        return torch.stack([(x @ fit.weight.T + fit.bias).argmax(1) for fit in fits]).cpu()

    benchmark.group = f"20 penalties, {DEVICE.type}"
    assert (solved("at_once") == solved("in_turn")).double().mean() > 0.9
    benchmark.extra_info.update(threads=torch.get_num_threads(), load=os.getloadavg()[0])
    side_by_side.race(benchmark, lambda: solved("at_once"), {"in turn": lambda: solved("in_turn")}, rounds=3)
