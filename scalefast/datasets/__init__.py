"""Well-known data sets, read from the annotation files that their authors distribute.

`read_dataset("ucf101", videos="/data/ucf101", split="train", fold=1)` gives a `VideoList`; docs/datasets.md says which
files are expected where.
"""

from __future__ import annotations

from scalefast.datasets._catalog import DATASETS, Dataset, DatasetName
from scalefast.datasets._labels import LABEL_MAPS, LabelMap, label_names
from scalefast.datasets._read import read_dataset

__all__ = ["DATASETS", "Dataset", "DatasetName", "LABEL_MAPS", "LabelMap", "label_names", "read_dataset"]
