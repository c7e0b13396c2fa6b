"""Compiling kernels for a GPU that is not there: what ships is compiled and its resources are held to a budget.

Triton compiles for an architecture without a driver if something answers for the device. The kernel goes through its
own launcher's `warmup`, so that arguments are specialised (divisible by 16, equal to 1) as in a real launch, and what
is compiled here is found in Triton's cache there.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["ARCHITECTURES", "Compiled", "Shipped", "compile_shipped"]

ARCHITECTURES = {
    "sm_80": ("cuda", 80, 32),
    "sm_90": ("cuda", 90, 32),
    "sm_100": ("cuda", 100, 32),
    "gfx942": ("hip", "gfx942", 64),
}
"""Name -> Triton's backend, architecture and warp size."""
_TENSOR_CORE = {"cuda": r"\b(?:mma\.sync|wgmma\.mma_async|tcgen05\.mma)\b", "hip": r"\bv_mfma_"}


@dataclass(frozen=True)
class Shipped:
    """One kernel as it is launched at a shape that ships, with its budget on sm_90."""

    name: str
    kernel: Any
    """The `@triton.jit` function."""
    arguments: tuple[Any, ...]
    """Positional arguments in order: a torch dtype for a pointer, numbers, None."""
    constants: dict[str, Any]
    """`tl.constexpr` arguments by name."""
    num_warps: int
    num_stages: int
    max_registers: int = 255
    """A thread."""
    max_spill_bytes: int = 0
    max_shared: int = 232_448
    """Bytes a block."""
    dots: bool = False
    """Whether it must hold tensor-core instructions."""


@dataclass(frozen=True)
class Compiled:
    """What the compiler made of a kernel."""

    registers: int
    spill_bytes: int
    """Stack frame a thread, where spilled registers go."""
    shared: int
    """Bytes a block."""
    tensor_core: int
    """Tensor-core instructions in the assembly."""
    seconds: float
    failures: tuple[str, ...] = field(default=())
    """Which budgets are exceeded, in words."""


def compile_shipped(
    shipped: Shipped, *, arch: str = "sm_90", options: dict[str, Any] | None = None
) -> Compiled:
    """Compile for `arch` on any machine, fill Triton's cache, and read the resources.

    Args:
        shipped: the kernel.
        arch: a key of `ARCHITECTURES`.
        options: further keywords of the launch, as the launcher gives them.

    Raises:
        ValueError: an unknown architecture. RuntimeError: TRITON_INTERPRET=1, under which nothing is compiled.
    """
    if arch not in ARCHITECTURES:
        raise ValueError(f"arch must be one of {', '.join(ARCHITECTURES)}; got {arch!r}")
    if not hasattr(shipped.kernel, "warmup") or type(shipped.kernel).__name__.startswith("Interpreted"):
        raise RuntimeError("kernels are not compiled under TRITON_INTERPRET=1: unset it")
    start = time.perf_counter()
    with _device(arch):
        kernel = shipped.kernel.warmup(
            *shipped.arguments,
            **shipped.constants,
            **(options or {}),
            grid=(1,),
            num_warps=shipped.num_warps,
            num_stages=shipped.num_stages,
            enable_fp_fusion=True,  # as in every launch: the default changes with Triton 3.10
        )
    seconds = time.perf_counter() - start
    backend = ARCHITECTURES[arch][0]
    assembly = kernel.asm["ptx" if backend == "cuda" else "amdgcn"]
    registers, spill = _resources(kernel, backend)
    found = Compiled(
        registers, spill, kernel.metadata.shared, len(re.findall(_TENSOR_CORE[backend], assembly)), seconds
    )
    return Compiled(**{**vars(found), "failures": tuple(_over_budget(found, shipped, arch))})


def _over_budget(found: Compiled, shipped: Shipped, arch: str) -> Iterator[str]:
    # Budgets are stated for sm_90. Another architecture allocates registers in its own way: sm_100 is held to the
    # spills and shared memory; on the others the kernels must compile, and hold tensor-core instructions where they
    # should.
    limits = {
        "registers": (found.registers, shipped.max_registers, ("sm_90",)),
        "spill bytes": (found.spill_bytes, shipped.max_spill_bytes, ("sm_90", "sm_100")),
        "shared bytes": (found.shared, shipped.max_shared, ("sm_90", "sm_100")),
    }
    for what, (value, limit, archs) in limits.items():
        if arch in archs and value > limit:
            yield f"{value} {what}, budget {limit}"
    if shipped.dots and not found.tensor_core:
        yield "no tensor-core instruction"


def _resources(kernel: Any, backend: str) -> tuple[int, int]:
    """Registers a thread and bytes of stack, from the binary itself."""
    if backend == "hip":
        text = kernel.asm["amdgcn"]
        count = {name: re.search(rf"\.{name}:?\s+(\d+)", text) for name in ("vgpr_count", "vgpr_spill_count")}
        numbers = {name: int(match.group(1)) if match else 0 for name, match in count.items()}
        return numbers["vgpr_count"], 4 * numbers["vgpr_spill_count"]
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(kernel.asm["cubin"])
        command = [str(_cuobjdump()), "--dump-resource-usage", str(cubin)]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    usage = re.search(r"REG:(\d+) STACK:(\d+)", text)
    if usage is None:
        raise RuntimeError(f"cuobjdump states no resources: {text.strip()!r}")
    return int(usage.group(1)), int(usage.group(2))


def _cuobjdump() -> Path:
    import triton

    path = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    if not path.is_file():
        raise RuntimeError(
            f"this Triton ({triton.__version__}) comes without cuobjdump: resources cannot be read"
        )
    return path


class _NoDevice:
    """Answers a launcher's questions about a device of some architecture; nothing can be launched on it."""

    def __init__(self, arch: str) -> None:
        from triton.backends.compiler import GPUTarget

        self._target = GPUTarget(*ARCHITECTURES[arch])
        # A launcher keeps its kernels by device number: a number of its own for each architecture, and no real one.
        self._number = 1000 + list(ARCHITECTURES).index(arch)

    def get_current_target(self) -> Any:
        return self._target

    def get_current_device(self) -> int:
        return self._number

    def get_current_stream(self, device: int = 0) -> int:
        return 0


@contextlib.contextmanager
def _device(arch: str) -> Iterator[None]:
    from triton.runtime import driver

    before = getattr(driver, "_active", None)  # None: not looked for yet, and perhaps not there
    driver.set_active(_NoDevice(arch))
    try:
        yield
    finally:
        driver.set_active(before)
