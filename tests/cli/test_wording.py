from __future__ import annotations

import pytest

from hgmm.cli.wording import for_command_line

GIVEN = {"train.epochs": "--epochs", "train.patience": "--set train.patience", "data.dataset": "--dataset"}


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("train.epochs: must be 1", "--epochs: must be 1"),
        ("train.patience: must be 1; lower train.seed", "--set train.patience: must be 1; lower train.seed"),
        ("datasets.load name_or_path: unknown", "--dataset: unknown"),
        ("unknown dataset 'x'", "--dataset: unknown dataset 'x'"),
        ("unknown model 'x'", "model.name: unknown model 'x'"),
        ("HGNNIMA, schema: needs a target", "--dataset: needs a target"),
        ("GraphMNL, branch_weights['a']: must be", "model.branch_weights['a']: must be"),
        ("Trainer.fit graph: 'g' has no training node", "--dataset: 'g' has no training node"),
        ("TrainedRun.embed: model 'm' gives none", "hgmm embed: model 'm' gives none"),
        ("TrainedRun.evaluate graph: 2 labels", "--dataset: 2 labels"),
        ("save_graph path: x holds", "--output: x holds"),
        ("corruption 'x': must be", "data.corrupt 'x': must be"),
        ("a; resume it with train_runs, or with --runs K", "a; resume it with --runs K"),
        ("a; resume it with train_run, or without --runs", "a; resume it without --runs"),
        (
            "it has no weights; resume it with train_run(run_dir=..., resume=True), or x",
            "it has no weights; resume it x",
        ),
        ("Load: run.load_graph(FOLDER), or hgmm predict", "Load: hgmm predict"),
        ("shop.csv row 3: unknown id", "shop.csv row 3: unknown id"),
    ],
)
def test_errors_in_the_words_of_the_command_line(message: str, words: str) -> None:
    assert for_command_line(message, GIVEN) == words
