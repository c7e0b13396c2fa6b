"""Who serves an op: by device, dtype and SCALEFAST_BACKEND; what cannot be served is refused."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from scalefast import kernels
from scalefast.kernels.ops import dispatch
from scalefast.kernels.ops.dispatch.constant import constant_result

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    for name in ("SCALEFAST_BACKEND", "TRITON_INTERPRET", "SCALEFAST_CHECKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SCALEFAST_NATIVE", "0")  # a choice of its own: test_native_loading.py
    monkeypatch.setattr(dispatch, "_triton_installed", lambda: True)
    monkeypatch.setattr(dispatch, "_capability_lacks", lambda index: None)


@pytest.mark.parametrize(
    ("device", "wish", "interpret", "served"),
    [
        (CPU, None, None, "reference"),
        (CPU, "auto", "1", "reference"),
        (CPU, "triton", "1", "triton"),
        (CPU, "reference", "1", "reference"),
        (CUDA, None, None, "triton"),
        (CUDA, "triton", None, "triton"),
        (CUDA, "reference", None, "reference"),
    ],
)
def test_who_serves(device, wish, interpret, served, monkeypatch):
    if wish is not None:
        monkeypatch.setenv("SCALEFAST_BACKEND", wish)
    if interpret is not None:
        monkeypatch.setenv("TRITON_INTERPRET", interpret)
    assert dispatch.choose(device).implementation == served
    found = kernels.backend(device)
    assert set(found) == set(dispatch.OPS)
    assert all(how.implementation == served and how.reason for how in found.values())


def test_what_is_left_to_others_is_said():
    pytest.importorskip("triton", reason="Triton is not installed")
    from scalefast.kernels.ops.set_attention.layout import MAX_TILE_TOKENS, most_tokens
    from scalefast.kernels.ops.sparse_infonce.triton import FUSED_DIM
    from scalefast.kernels.ops.view_sampling.triton import MAX_CLIPS

    assert not any(how.limits for how in kernels.backend("cpu").values())
    limits = {op: how.limits for op, how in kernels.backend("cuda").items()}
    assert all("fp64" in text for text in limits.values())
    assert f"above {MAX_TILE_TOKENS} tokens ({most_tokens(torch.float32)} in fp32)" in limits["set_attention"]
    assert f"D above {FUSED_DIM}" in limits["sparse_infonce"]
    assert f"more than {MAX_CLIPS} clips" in limits["sample_views"]


def test_nothing_of_the_choice_is_traced(monkeypatch, recwarn):
    torch.compiler.reset()
    monkeypatch.undo()
    monkeypatch.setattr(dispatch, "_triton_installed", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index=None: (9, 0))
    dispatch._found_lacking.cache_clear()

    def serve(x):
        return x + 1 if dispatch.choose(CUDA).implementation == "triton" else x - 1

    compiled = torch.compile(serve, fullgraph=True, backend="eager")
    assert compiled(torch.zeros(1)) == 1
    dispatch._found_lacking.cache_clear()
    assert not [warning for warning in recwarn if "lru_cache" in str(warning.message)]


def test_triton_on_a_cpu_without_the_interpreter_is_refused(monkeypatch):
    monkeypatch.setenv("SCALEFAST_BACKEND", "triton")
    with pytest.raises(ValueError, match=r"cannot serve cpu tensors here.*TRITON_INTERPRET=1"):
        dispatch.choose(CPU)
    with pytest.raises(ValueError, match="cannot serve cpu tensors"):
        kernels.set_attention(*torch.zeros(3, 1, 2, 1, 4))


def test_what_lacks_is_said(monkeypatch):
    monkeypatch.setattr(dispatch, "_triton_installed", lambda: False)
    assert "scalefast[gpu]" in dispatch.choose(CUDA).reason
    monkeypatch.setenv("SCALEFAST_BACKEND", "triton")
    with pytest.raises(ValueError, match=r"cannot serve cuda tensors here: Triton is not installed"):
        dispatch.choose(CUDA)
    monkeypatch.setattr(dispatch, "_triton_installed", lambda: True)
    monkeypatch.setattr(dispatch, "_capability_lacks", lambda index: "this GPU has 7.0")
    with pytest.raises(ValueError, match=r"this GPU has 7\.0"):
        dispatch.choose(CUDA)


def test_an_unknown_wish_names_the_choices(monkeypatch):
    monkeypatch.setenv("SCALEFAST_BACKEND", "abacus")
    with pytest.raises(ValueError, match="auto, reference, triton; got 'abacus'"):
        kernels.backend("cpu")


def test_fp64_is_the_references(monkeypatch):
    monkeypatch.setenv("SCALEFAST_BACKEND", "triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert dispatch.serves_triton("sparse_infonce", torch.zeros(1))
    assert not dispatch.serves_triton("sparse_infonce", torch.zeros(1, dtype=torch.float64))
    with pytest.raises(ValueError, match="op must be one of"):
        dispatch.serves_triton("matmul", torch.zeros(1))


def test_values_are_looked_at_on_cpu_and_never_while_tracing(monkeypatch):
    assert dispatch.checks_device_data(torch.zeros(1))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not dispatch.checks_device_data(torch.zeros(1))


def test_a_constant_result_bears_torchs_own_mark() -> None:
    def function() -> None: ...

    def other() -> None: ...

    assert vars(constant_result(function)) == vars(torch.compiler.assume_constant_result(other)) != {}


def test_importing_scalefast_does_not_import_the_compiler() -> None:
    code = "import sys, scalefast; scalefast.SCALE, scalefast.SCALEPretraining; print('torch._dynamo' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
