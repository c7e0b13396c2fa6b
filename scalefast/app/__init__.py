"""A page to drop a video on and browse what is similar (extra `app`)."""

from __future__ import annotations

from scalefast.app.browsing import Answer, Browser, Card
from scalefast.app.page import build_page, serve

__all__ = ["Answer", "Browser", "Card", "build_page", "serve"]
