"""The options of the recommended recipe on the GPU against the same step on the CPU."""

from __future__ import annotations

import copy

import pytest
import torch

from scalefast import SCALE, SCALEPretraining, kernels
from scalefast.objective import Objective

OPTIONS = {
    "recommended": {"target": "fixed", "koleo_weight": 0.1, "time_weight": 0.25},
    "ema": {"target": "ema", "variance_weight": 0.5},
    "exclude": {"same_video": "exclude", "mcm_weight": 0.8, "set_weight": 0.2},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_losses_and_gradients_are_those_of_the_cpu(cuda: torch.device, name: str) -> None:
    torch.manual_seed(0)
    model = SCALE(feature_dim=48, hidden_dim=64, center_sets=True, calibrated=True)
    task = SCALEPretraining(model, mask_ratio=0.5, objective=Objective(**OPTIONS[name]))
    random = torch.Generator().manual_seed(1)
    features, positions = (
        torch.randn(24, 2, 8, 48, generator=random),
        torch.rand(24, 2, 8, 7, generator=random),
    )
    found = []
    for device in (torch.device("cpu"), cuda, cuda):
        here = copy.deepcopy(task).to(device).train()
        rng = kernels.RandomState.create(7, step=3, rows=torch.arange(24, device=device))
        losses = here(features.to(device), positions.to(device), rng=rng)
        losses.loss.backward()
        gradients = {n: p.grad.cpu() for n, p in here.named_parameters() if p.grad is not None}
        found.append((losses.loss.detach().cpu(), gradients))
    (expected, wanted), (loss, gradients), (again, repeated) = found
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    assert gradients.keys() == wanted.keys()
    for parameter, gradient in wanted.items():
        assert (gradients[parameter] - gradient).abs().max() <= 1e-3 * gradient.abs().max(), parameter
    assert torch.equal(loss, again)
    assert all(torch.equal(gradients[parameter], repeated[parameter]) for parameter in gradients)
