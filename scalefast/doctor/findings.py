"""What this machine can do: packages, devices, the implementation of each op, and what to install for more."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scalefast._version import __version__
from scalefast.doctor.machine import cores, cpu_features, cpu_name, look_at_torch
from scalefast.doctor.packages import CORE, EXTRAS, VERB_EXTRAS, Package, installed

__all__ = ["Findings", "examine"]

_NVIDIA_DRIVER = Path("/proc/driver/nvidia")


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What `examine` found; `to_dict()` is what `scalefast doctor --json` prints."""

    version: str
    """Version of scalefast."""
    python: str
    """Version of Python."""
    system: str
    """Operating system and processor architecture."""
    packages: tuple[Package, ...]
    """Everything that scalefast needs or can use."""
    cpu: dict[str, Any]
    """`name`, `cores` that this process may use, `features` of the instruction set, `threads` of torch."""
    gpus: tuple[dict[str, Any], ...]
    """One entry a CUDA device: `name`, `memory_gib`, `capability`."""
    torch_build: str
    """`CUDA 13.0`, `CPU`, ... or why torch does not import."""
    ops: dict[str, dict[str, dict[str, str]]]
    """Device -> op -> `implementation` and `reason`."""
    verbs: dict[str, str]
    """Verb -> `ready`, or what it lacks."""
    advice: tuple[str, ...]
    """What to install or set, one sentence each; empty if nothing is amiss."""

    @property
    def healthy(self) -> bool:
        """What is always needed is there in versions that fit, and torch imports with its ops."""
        return all(package.fits for package in self.packages if package.extra is None) and bool(self.ops)

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists and strings, for JSON."""
        packages = {
            package.name: {
                "installed": package.installed,
                "wanted": package.wanted,
                "extra": package.extra,
                "fits": package.fits,
            }
            for package in self.packages
        }
        return {
            "version": self.version,
            "healthy": self.healthy,
            "python": self.python,
            "system": self.system,
            "packages": packages,
            "cpu": self.cpu,
            "gpus": list(self.gpus),
            "torch_build": self.torch_build,
            "ops": self.ops,
            "verbs": self.verbs,
            "advice": list(self.advice),
        }


def examine() -> Findings:
    """Looks at this machine. Never raises for what it finds: a torch that does not import is a finding."""
    packages = tuple(
        Package(name=name, wanted=wanted, installed=installed(name), extra=extra)
        for extra, table in ((None, CORE), *EXTRAS.items())
        for name, wanted in table.items()
    )
    build, threads, gpus = look_at_torch()
    ops, trouble = _look_at_ops(cuda=bool(gpus))
    return Findings(
        version=__version__,
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        packages=packages,
        cpu={"name": cpu_name(), "cores": cores(), "features": cpu_features(), "threads": threads},
        gpus=gpus,
        torch_build=build,
        ops=ops,
        verbs={verb: _readiness(verb, packages) for verb in VERB_EXTRAS},
        advice=(*trouble, *_advice(packages, build=build, gpus=gpus)),
    )


def _look_at_ops(*, cuda: bool) -> tuple[dict[str, dict[str, dict[str, str]]], list[str]]:
    """Who serves each op on each device, and what is wrong if that cannot be said."""
    try:
        from scalefast import kernels

        served = {device: kernels.backend(device) for device in (["cpu", "cuda"] if cuda else ["cpu"])}
    except Exception as error:  # no torch, or a SCALEFAST_BACKEND that is not there: both are findings
        return {}, [f"the ops cannot be used: {error}"]
    return {
        device: {op: {"implementation": how.implementation, "reason": how.reason} for op, how in ops.items()}
        for device, ops in served.items()
    }, []


def _readiness(verb: str, packages: tuple[Package, ...]) -> str:
    lacking = [
        extra
        for extra in VERB_EXTRAS[verb]
        if any(package.installed is None for package in packages if package.extra == extra)
    ]
    return f"needs: pip install 'scalefast[{','.join(lacking)}]'" if lacking else "ready"


def _advice(packages: tuple[Package, ...], *, build: str, gpus: tuple[dict[str, Any], ...]) -> list[str]:
    advice = [
        f"{package.name} {package.installed} is outside {package.wanted}: pip install '{package.requirement}'"
        for package in packages
        if package.installed is not None and not package.fits
    ]
    advice += [
        f"{package.name} is missing, and nothing works without it: pip install '{package.requirement}'"
        for package in packages
        if package.installed is None and package.extra is None
    ]
    wanted = ["video", "backbones", "report", *(["gpu"] if gpus else [])]
    lacking = [e for e in wanted if any(p.installed is None for p in packages if p.extra == e)]
    if lacking:
        advice.append(f"for {', '.join(lacking)}: pip install 'scalefast[{','.join(lacking)}]'")
    if build == "CPU" and _NVIDIA_DRIVER.exists():
        advice.append(
            "there is an NVIDIA driver, but torch is a CPU build: install a CUDA build of it to use the GPU"
        )
    if build == "CPU" and installed("torchvision") is not None:
        advice.append(
            "torchvision is installed beside a CPU build of torch and breaks transformers' video models if "
            "the two do not match; scalefast does not need it: pip uninstall torchvision"
        )
    return advice
