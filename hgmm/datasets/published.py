"""What the five datasets of HGNN-IMA have in common: sources, terms, and the hyperparameters of the official code."""

from __future__ import annotations

from typing import Any

__all__ = ["CITATION", "MHGAT", "TERMS", "URL", "settings", "variant_settings"]

URL = "https://drive.google.com/drive/folders/1BE8UC02t2-23F-aDBi3XXjXbX38Yg-Rkt"
CITATION = "HGNN-IMA: IJCAI 2025, pp. 3036-3044, doi 10.24963/ijcai.2025/338"
MHGAT = "data from MHGAT: Neural Computing and Applications 35(4), 2023, doi 10.1007/s00521-022-07862-6"
TERMS = "not stated by its authors"


def settings(*, hidden_size: int, epochs: int, patience: int, monitor: str) -> dict[str, Any]:
    """Return the configuration of the official code; what differs between the datasets is an argument.

    Adam with decoupled decay, full graph, one step an epoch; the one-cycle schedule spans 1,000 steps whatever the
    number of epochs, so a run ends early in its decay.
    """
    return {
        "model.hidden_size": hidden_size,
        "model.num_heads": 8,
        "model.num_layers": 3,
        "train.epochs": epochs,
        "train.patience": patience,
        "train.monitor": monitor,
        "train.patience_monitor": "loss",
        "train.learning_rate": 1e-3,
        "train.weight_decay": 5e-3,
        "train.scheduler": "one-cycle",
        "train.scheduler_steps": 1000,
        "train.scheduler_warmup": 0.05,
        "train.gradient_clip": 0.0,
        "train.label_smoothing": 0.0,
    }


def variant_settings(*, fill: str | None, branch_weight: float, missing_attention_weight: float) -> dict[str, Any]:
    """Return what belongs to the released module of a dataset: its fill of absent modalities and its loss terms."""
    return {
        "model.fill": fill,
        "train.branch_weight": branch_weight,
        "train.missing_attention_weight": missing_attention_weight,
    }
