"""Find the videos nearest to a video, and the seconds in them that are.

Exact for as long as that is quick; a kept index of many videos uses faiss (extra `faiss`).
"""

from __future__ import annotations

from scalefast.search.index import EXACT_LIMIT, VectorIndex, build_index
from scalefast.search.moments import Moment
from scalefast.search.query import Query
from scalefast.search.searcher import Neighbour, Searcher, search

__all__ = [
    "EXACT_LIMIT",
    "Moment",
    "Neighbour",
    "Query",
    "Searcher",
    "VectorIndex",
    "build_index",
    "search",
]
