"""Train in a process of its own: ``python -m tests.integration.train_in_process FOLDER... [--slow]``.

A folder that holds a run already is resumed. With ``--slow`` each step takes long enough for somebody to kill the
process between two of them.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from hgmm.training import Callback, RunConfig, RunRecord, train_run
from tests.training.tiny import make_graph

SETTINGS = {
    "model.name": "hgnn-ima",
    "model.hidden_size": 8,
    "model.num_heads": 2,
    "model.num_layers": 2,
    "model.modality_dropout": 0.2,
    "train.epochs": 6,
    "train.learning_rate": 0.02,
    "train.scheduler": "cosine",
    "train.batch_size": 8,
    "train.fanouts": [2, 2],
    "train.device": "cpu",
    "train.num_threads": 1,
    "train.checkpoint_seconds": 0.0,
}


class Slowly(Callback):
    """Wait a little after each step."""

    def on_step(self, step: int, num_steps: int) -> None:
        time.sleep(0.05)


def train(folder: Path, *, slow: bool = False) -> RunRecord:
    config = RunConfig.resolve(None, None, SETTINGS)
    callbacks = (Slowly(),) if slow else ()
    resume = (folder / "config.yaml").exists()
    return train_run(config, run_dir=folder, resume=resume, callbacks=callbacks, graph=make_graph(width=7))


if __name__ == "__main__":
    for name in sys.argv[1:]:
        if name != "--slow":
            train(Path(name), slow="--slow" in sys.argv)
