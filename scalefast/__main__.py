"""`python -m scalefast`: the command line."""

from __future__ import annotations

import sys

from scalefast.cli import main

if __name__ == "__main__":
    sys.exit(main())
