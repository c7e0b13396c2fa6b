"""The findings of an examination as text."""

from __future__ import annotations

from scalefast.doctor.findings import Findings
from scalefast.doctor.machine import CPU_FLAGS
from scalefast.doctor.packages import Package

__all__ = ["render"]


def render(findings: Findings) -> str:
    """The findings as text to read."""
    cpu = findings.cpu
    features = ", ".join(cpu["features"]) or "none of " + ", ".join(CPU_FLAGS)
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


def _package_line(package: Package) -> str:
    state = package.installed or "not installed"
    if package.installed and not package.fits:
        state += f" (known to work: {package.wanted})"
    origin = f"extra {package.extra}" if package.extra else "always needed"
    return f"  {package.name:<20} {state:<16} {origin}"
