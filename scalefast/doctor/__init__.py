"""What this machine can do, and what limits a run on it.

`examine()` looks and changes nothing: optional packages are found by their metadata, not imported, so that a
broken one cannot break the examination. `render(findings)` is the text that `scalefast doctor` prints. What a run
of one's own spends its time on is measured by `profile_store` and `profile_videos`, of the modules of these names.
"""

from __future__ import annotations

from scalefast.doctor.findings import Findings, examine
from scalefast.doctor.packages import CORE, EXTRAS, VERB_EXTRAS, Package, version_fits
from scalefast.doctor.render import render

__all__ = ["CORE", "EXTRAS", "VERB_EXTRAS", "Findings", "Package", "examine", "render", "version_fits"]
