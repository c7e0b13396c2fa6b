"""What this machine can do: packages, devices, the implementation of each op, and what to install for more.

`examine()` looks and changes nothing: optional packages are found by their metadata, not imported, so that a
broken one cannot break the examination. `render(findings)` is the text that `scalefast doctor` prints.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scalefast._version import __version__

__all__ = ["CORE", "EXTRAS", "VERB_EXTRAS", "Findings", "Package", "examine", "render"]

CORE = {
    "torch": ">=2.11,<2.16",
    "numpy": ">=1.26",
    "safetensors": ">=0.4.5",
    "huggingface_hub": ">=0.30",
    "tyro": ">=0.9.20",
    "tqdm": ">=4.66",
}
"""What scalefast always needs, with the versions that it is known to work with; as in pyproject.toml."""

EXTRAS = {
    "video": {"av": ">=17"},
    "backbones": {"transformers": ">=4.53,<6"},
    "report": {"matplotlib": ">=3.9", "tensorboard": ">=2.18"},
    "dali": {"nvidia-dali-cuda130": ">=2.0,<3"},
    "gpu": {"triton": ">=3.6,<3.10"},
    "timm": {"timm": ">=1.0.12"},
}
"""Extra -> the packages that it installs, with their versions; as in pyproject.toml."""

VERB_EXTRAS: dict[str, tuple[str, ...]] = {
    "scan": ("video",),
    "extract": ("video",),
    "pretrain": (),
    "evaluate": (),
    "embed": (),
    "search": (),
    "report": ("report",),
    "precompile": ("gpu",),
    "doctor": (),
}
"""Verb -> the extras without which it cannot run."""

_CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
_NVIDIA_DRIVER = Path("/proc/driver/nvidia")


@dataclass(frozen=True, kw_only=True)
class Package:
    """A package that scalefast needs or can use."""

    name: str
    """Name of the distribution."""
    wanted: str
    """Versions that are known to work, for example `>=2.11,<2.16`."""
    installed: str | None
    """Version found, None if there is none."""
    extra: str | None
    """The extra that installs it, None for what is always needed."""

    @property
    def requirement(self) -> str:
        """As pip takes it, for example `torch>=2.11,<2.16`."""
        return self.name + self.wanted

    @property
    def fits(self) -> bool:
        """Installed, in a version that is known to work."""
        return self.installed is not None and version_fits(self.installed, self.wanted)


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
        Package(name=name, wanted=wanted, installed=_installed(name), extra=extra)
        for extra, table in ((None, CORE), *EXTRAS.items())
        for name, wanted in table.items()
    )
    build, threads, gpus = _look_at_torch()
    ops, trouble = _look_at_ops(cuda=bool(gpus))
    return Findings(
        version=__version__,
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        packages=packages,
        cpu={"name": _cpu_name(), "cores": _cores(), "features": _cpu_features(), "threads": threads},
        gpus=gpus,
        torch_build=build,
        ops=ops,
        verbs={verb: _readiness(verb, packages) for verb in VERB_EXTRAS},
        advice=(*trouble, *_advice(packages, build=build, gpus=gpus)),
    )


def render(findings: Findings) -> str:
    """The findings as text to read."""
    cpu = findings.cpu
    features = ", ".join(cpu["features"]) or "none of " + ", ".join(_CPU_FLAGS)
    lines = [f"scalefast {findings.version}, Python {findings.python}, {findings.system}", "", "devices"]
    lines += [f"  CPU  {cpu['name']}: {cpu['cores']} cores here, torch uses {cpu['threads']}; {features}"]
    lines += [
        f"  GPU  {gpu['name']}: {gpu['memory_gib']} GiB, compute capability {gpu['capability']}"
        for gpu in findings.gpus
    ] or ["  GPU  none that torch sees"]
    lines += [f"  torch build: {findings.torch_build}", "", "packages"]
    lines += [_package_line(package) for package in findings.packages]
    for device, served in findings.ops.items():
        lines += ["", f"ops on {device}"]
        lines += [f"  {op:<15} {how['implementation']:<10} {how['reason']}" for op, how in served.items()]
    lines += ["", "verbs", *(f"  {verb:<10} {state}" for verb, state in findings.verbs.items()), ""]
    if findings.advice:
        lines += ["to do", *(f"  - {sentence}" for sentence in findings.advice)]
    else:
        lines += ["nothing is amiss"]
    return "\n".join(lines)


def version_fits(version: str, wanted: str) -> bool:
    """Whether a version lies in a range such as `>=2.11,<2.16`; local and pre-release parts are ignored.

    Example: `version_fits("2.13.0+cpu", ">=2.11,<2.16")` is true.
    """
    found = _release(version)
    for bound in wanted.split(","):
        operator, limit = bound.rstrip("0123456789."), _release(bound.lstrip("<>="))
        if operator not in (">=", "<"):
            raise ValueError(f"a range is made of '>=' and '<' alone: {wanted = }")
        if (found >= limit) != (operator == ">="):
            return False
    return True


def _release(version: str) -> tuple[int, ...]:
    """Leading numbers of a version without trailing zeros, so that 2.11 and 2.11.0 are equal."""
    match = re.match(r"\d+(\.\d+)*", version)
    numbers = [int(part) for part in match.group().split(".")] if match else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _look_at_torch() -> tuple[str, int | None, tuple[dict[str, Any], ...]]:
    """Build, CPU threads and GPUs; a torch that does not import gives its error as the build."""
    try:
        import torch
    except Exception as error:  # a broken installation can raise nearly anything: it is the finding
        return f"torch does not import: {error}", None, ()
    build = "CPU"
    if torch.version.cuda is not None:
        build = f"CUDA {torch.version.cuda}"
    elif torch.version.hip is not None:
        build = f"ROCm {torch.version.hip}"
    gpus = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        seen = torch.cuda.get_device_properties(index)
        capability = f"{seen.major}.{seen.minor}"
        gpus.append(
            {"name": seen.name, "memory_gib": round(seen.total_memory / 2**30, 1), "capability": capability}
        )
    return build, torch.get_num_threads(), tuple(gpus)


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
    if build == "CPU" and _installed("torchvision") is not None:
        advice.append(
            "torchvision is installed beside a CPU build of torch and breaks transformers' video models if "
            "the two do not match; scalefast does not need it: pip uninstall torchvision"
        )
    return advice


def _package_line(package: Package) -> str:
    state = package.installed or "not installed"
    if package.installed and not package.fits:
        state += f" (known to work: {package.wanted})"
    origin = f"extra {package.extra}" if package.extra else "always needed"
    return f"  {package.name:<20} {state:<16} {origin}"


def _cores() -> int:
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpuinfo(field: str) -> str:
    """A field of the first processor in /proc/cpuinfo; empty where there is no such file."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    found = re.search(rf"^{re.escape(field)}\s*:\s*(.*)$", text, flags=re.MULTILINE)
    return found.group(1) if found else ""


def _cpu_name() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpu_features() -> list[str]:
    """Vector and matrix instructions that decide the speed; bf16 pays with avx512_bf16 or amx_bf16."""
    flags = set(_cpuinfo("flags").split())
    return [flag for flag in _CPU_FLAGS if flag in flags]
