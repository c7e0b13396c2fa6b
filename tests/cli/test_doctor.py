"""`scalefast doctor`: true of this machine, and right about machines that lack something."""

from __future__ import annotations

import importlib.metadata
import json

import numpy as np
import pytest
import torch

from scalefast import cli, doctor


@pytest.fixture(scope="module")
def findings():
    return doctor.examine()


@pytest.fixture
def without(monkeypatch):
    """Makes packages look absent, or of another version."""

    def hide(**versions: str | None) -> None:
        real = importlib.metadata.version

        def version(name: str) -> str:
            if name not in versions:
                return real(name)
            if versions[name] is None:
                raise importlib.metadata.PackageNotFoundError(name)
            return versions[name]

        monkeypatch.setattr(importlib.metadata, "version", version)

    return hide


def test_it_reports_what_is_installed(findings):
    installed = {package.name: package.installed for package in findings.packages}
    assert installed["torch"] == torch.__version__
    assert installed["numpy"] == np.__version__
    assert findings.healthy


def test_every_op_has_an_implementation_and_a_reason(findings):
    assert set(findings.ops) == ({"cpu", "cuda"} if torch.cuda.is_available() else {"cpu"})
    expected = {"embed_sets", "gather_masked", "set_attention", "sparse_infonce", "sample_views"}
    for served in findings.ops.values():
        assert expected <= set(served)
        assert all(
            how["implementation"] in ("reference", "native", "triton") and how["reason"]
            for how in served.values()
        )


def test_the_text_holds_packages_devices_ops_and_verbs(findings):
    text = doctor.render(findings)
    for word in [*doctor.CORE, "CPU", "GPU", "ops on cpu", *findings.ops["cpu"], *cli.VERBS]:
        assert word in text


def test_json_is_the_same_findings(capsys):
    assert cli.main(["doctor", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["healthy"] is True
    assert printed["packages"]["torch"]["installed"] == torch.__version__
    assert set(printed["verbs"]) == set(cli.VERBS)


def test_a_missing_extra_is_told_with_what_installs_it(without):
    without(av=None, matplotlib=None)
    found = doctor.examine()
    assert found.verbs["scan"] == found.verbs["extract"] == "needs: pip install 'scalefast[video]'"
    assert found.verbs["report"] == "needs: pip install 'scalefast[report]'"
    assert found.verbs["pretrain"] == "ready"
    assert "for video, report: pip install 'scalefast[video,report]'" in found.advice
    assert found.healthy


def test_a_version_outside_the_range_is_told(without):
    without(torch="2.7.1")
    found = doctor.examine()
    assert not found.healthy
    assert any("torch 2.7.1 is outside >=2.11,<2.16" in sentence for sentence in found.advice)
    assert "known to work: >=2.11,<2.16" in doctor.render(found)


def test_a_missing_core_package_makes_the_exit_status_1(without, capsys):
    without(safetensors=None)
    assert cli.main(["doctor"]) == 1
    assert "safetensors is missing, and nothing works without it" in capsys.readouterr().out


def test_an_unknown_backend_is_a_finding_not_a_crash(monkeypatch):
    monkeypatch.setenv("SCALEFAST_BACKEND", "abacus")
    found = doctor.examine()
    assert not found.healthy and found.ops == {}
    assert any("abacus" in sentence for sentence in found.advice)


def test_an_idle_gpu_driver_is_pointed_out(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor.findings, "_NVIDIA_DRIVER", tmp_path)
    advice = doctor.findings._advice((), build="CPU", gpus=())
    assert any("install a CUDA build" in sentence for sentence in advice)
    assert not any(
        "CUDA build" in sentence for sentence in doctor.findings._advice((), build="CUDA 13.0", gpus=())
    )


@pytest.mark.parametrize(
    ("version", "wanted", "fits"),
    [
        ("2.11.0", ">=2.11,<2.16", True),
        ("2.11", ">=2.11.0", True),
        ("2.13.0+cpu", ">=2.11,<2.16", True),
        ("2.16.0", ">=2.11,<2.16", False),
        ("2.9.1", ">=2.11", False),
        ("3.10.0rc1", ">=3.6,<3.10", False),
        ("14", ">=14", True),
        ("0.9.3", ">=0.9.20", False),
    ],
)
def test_versions_compare_by_number(version, wanted, fits):
    assert doctor.version_fits(version, wanted) is fits


def test_a_range_of_another_form_is_refused():
    with pytest.raises(ValueError, match="~="):
        doctor.version_fits("1.0", "~=1.0")
