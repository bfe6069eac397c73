"""``gdkvm-base``: the published network, faithful to its golden vectors. Needs torch.

Axes beyond the key of ``model``: ``Q`` object queries, ``L`` drafts of the query transformer, ``S``
sessions and structures merged into one batch, ``1`` an axis of length one.
"""

from model.base.checkpoint import ImportedWeights, import_checkpoint, load_base
from model.base.config import AlphaRule, BaseConfig
from model.base.export import export_step
from model.base.network import AuxiliaryLogits, BaseNetwork, StepOutput
from model.base.state import STATE_NAMES, BaseState

__all__ = [
    "STATE_NAMES",
    "AlphaRule",
    "AuxiliaryLogits",
    "BaseConfig",
    "BaseNetwork",
    "BaseState",
    "ImportedWeights",
    "StepOutput",
    "export_step",
    "import_checkpoint",
    "load_base",
]
