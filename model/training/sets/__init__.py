"""The data sets that scientists hold, each read into recordings that run from ED to ES."""

from model.training.sets.door import open_set
from model.training.sets.study import SPLITS, DataSet, Recording, Study

__all__ = ["SPLITS", "DataSet", "Recording", "Study", "open_set"]
