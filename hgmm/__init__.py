"""hgmm: multimodal heterogeneous graphs on DGL."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hgmm import datasets, graph, losses, models, nn, training
    from hgmm.graph import GraphBuilder, GraphSchema, ModalitySpec, MultimodalGraph
    from hgmm.training import (
        NegativeConfig,
        NegativeLearningTask,
        NodeClassificationTask,
        TrainConfig,
        Trainer,
        configure,
        load_run,
        train_run,
    )

__version__ = "0.1.0"

__all__ = [
    "GraphBuilder",
    "GraphSchema",
    "ModalitySpec",
    "MultimodalGraph",
    "NegativeConfig",
    "NegativeLearningTask",
    "NodeClassificationTask",
    "TrainConfig",
    "Trainer",
    "__version__",
    "configure",
    "datasets",
    "graph",
    "load_run",
    "losses",
    "models",
    "nn",
    "train_run",
    "training",
]

_HOME = {
    "GraphBuilder": "hgmm.graph",
    "GraphSchema": "hgmm.graph",
    "ModalitySpec": "hgmm.graph",
    "MultimodalGraph": "hgmm.graph",
    "NegativeConfig": "hgmm.training",
    "NegativeLearningTask": "hgmm.training",
    "NodeClassificationTask": "hgmm.training",
    "TrainConfig": "hgmm.training",
    "Trainer": "hgmm.training",
    "configure": "hgmm.training",
    "load_run": "hgmm.training",
    "train_run": "hgmm.training",
}
_PARTS = ("datasets", "graph", "losses", "models", "nn", "training")


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: ``import hgmm`` alone loads neither torch nor DGL."""
    if name in _PARTS:
        return import_module(f"hgmm.{name}")
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'hgmm' has no attribute {name!r}; it has: {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)
