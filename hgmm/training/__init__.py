"""One loop for every model and task: configuration, training, checkpoints, records, trained runs."""

from __future__ import annotations

from hgmm.training.config import ModelConfig, RunConfig, TrainConfig, model_options, model_settings
from hgmm.training.config_file import parse_setting, read_config
from hgmm.training.data_config import DataConfig
from hgmm.training.interrupts import Interrupted
from hgmm.training.link_config import LinkConfig
from hgmm.training.link_task import LinkPredictionTask
from hgmm.training.negative_config import NegativeConfig
from hgmm.training.negative_task import NegativeLearningTask
from hgmm.training.predictions import Predictions
from hgmm.training.progress import Callback, EpochRecord, FitResult
from hgmm.training.run_folder import default_run_dir, new_run_dir
from hgmm.training.run_record import RunRecord, list_runs
from hgmm.training.session import configure, train_run, train_runs
from hgmm.training.task import NodeClassificationTask, Task, classification_metrics
from hgmm.training.trained_run import TrainedRun, load_run
from hgmm.training.trainer import Trainer

__all__ = [
    "Callback",
    "DataConfig",
    "EpochRecord",
    "FitResult",
    "Interrupted",
    "LinkConfig",
    "LinkPredictionTask",
    "ModelConfig",
    "NegativeConfig",
    "NegativeLearningTask",
    "NodeClassificationTask",
    "Predictions",
    "RunConfig",
    "RunRecord",
    "Task",
    "TrainConfig",
    "TrainedRun",
    "Trainer",
    "classification_metrics",
    "configure",
    "default_run_dir",
    "list_runs",
    "load_run",
    "model_options",
    "model_settings",
    "new_run_dir",
    "parse_setting",
    "read_config",
    "train_run",
    "train_runs",
]
