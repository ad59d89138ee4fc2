"""A folder of triples by name and one array of vectors: one command trains on it, and the others work on its run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.cli.conftest import Invoke

# Each person lives in the city of the neighbours, and the vectors tell the city.
CITIES = ("Oslo", "Rome")
PEOPLE = ("Ada", "Ben", "Cleo", "Dan Brown", "Eve", "Finn", "Gus", "Hana")
ENTITIES = sorted((*CITIES, *PEOPLE))
ROWS = [
    *((person, "lives in", CITIES[n % 2]) for n, person in enumerate(PEOPLE)),
    *((one, "neighbour of", PEOPLE[(n + 2 * step) % 8]) for step in (1, 2, 3) for n, one in enumerate(PEOPLE)),
]
TINY = ("--set", "model.dim=8", "--set", "link.num_negs_per_pos=4", "--set", "train.num_threads=1")


def write_folder(folder: Path, *, suffix: str = "tsv", valid: str = "valid", names: tuple[str, ...] = ()) -> None:
    """Write three splits and ``image.npy``, whose rows are `names`, or else all entities in order."""
    folder.mkdir()
    for split, part in (("train", ROWS[:24]), (valid, ROWS[24:28]), ("test", ROWS[28:])):
        (folder / f"{split}.{suffix}").write_text("".join("\t".join(row) + "\n" for row in part), encoding="utf-8")
    listed = names or ENTITIES
    np.save(folder / "image.npy", np.random.default_rng(0).standard_normal((len(listed), 6)))
    if names:
        (folder / "image_ids.txt").write_text("\n".join(names) + "\n", encoding="utf-8")


@pytest.mark.parametrize(("suffix", "valid"), [("tsv", "valid"), ("txt", "val")])
def test_one_command_trains_and_the_others_work_on_the_run(hgmm: Invoke, suffix: str, valid: str) -> None:
    write_folder(Path("family"), suffix=suffix, valid=valid)
    trained = hgmm("train", "--dataset", "./family", "--model", "mm-transe", "--epochs", "2", *TINY)
    assert trained.exit_code == 0, trained.output
    assert "graph: 10 entities (10 with image), 2 relations, 24 train, 4 val, 4 test triples" in trained.output
    assert "rows of image.npy are the entities in the order of their names; entities.txt sets another" in trained.output
    assert "MRR" in trained.output
    (run,) = map(str, Path("runs").iterdir())
    assert f"hgmm predict {run} --head NAME --relation NAME" in trained.output

    scores = next(line for line in trained.output.splitlines() if line.startswith("MRR"))
    evaluated = hgmm("evaluate", run)
    assert evaluated.exit_code == 0, evaluated.output
    assert scores.split() in [line.split() for line in evaluated.output.splitlines()]

    answered = hgmm("predict", run, "--head", "Dan Brown", "--relation", "lives in", "--top", "3", "-o", "a.csv")
    assert answered.output == "3 predictions for family (local data) in a.csv\n"
    table = pd.read_csv("a.csv")
    assert set(table["head"]) == {"Dan Brown"}
    # Training says Rome already.
    assert set(table["tail"]) <= set(ENTITIES) - {"Rome"}
    assert list(table["score"]) == sorted(table["score"], reverse=True)

    embedded = hgmm("embed", run, "-o", "e.npz")
    assert embedded.output == "10 vectors of width 16 for family (local data) in e.npz\n"
    with np.load("e.npz", allow_pickle=False) as archive:
        assert archive["ids"].tolist() == ENTITIES


def test_the_default_model_of_triples_needs_no_name(hgmm: Invoke) -> None:
    write_folder(Path("family"), names=("Rome", "Ada", "Hana"))
    trained = hgmm("train", "--dataset", "./family", "--epochs", "1", *TINY)
    assert trained.exit_code == 0, trained.output
    assert "10 entities (3 with image)" in trained.output
    assert "order of their names" not in trained.output


def test_a_folder_without_vectors_is_trained_on_its_triples(hgmm: Invoke) -> None:
    write_folder(Path("family"))
    Path("family/image.npy").unlink()
    trained = hgmm("train", "--dataset", "./family", "--epochs", "1", *TINY)
    assert trained.exit_code == 0, trained.output
    assert "10 entities (no modality)" in trained.output


def test_the_answers_to_one_question_are_shown(hgmm: Invoke) -> None:
    write_folder(Path("family"))
    hgmm("train", "--dataset", "./family", "--epochs", "1", "--run-dir", "one", *TINY)
    shown = hgmm("predict", "one", "--relation", "lives in", "--tail", "Oslo", "--top", "2")
    hgmm("predict", "one", "--relation", "lives in", "--tail", "Oslo", "--top", "2", "-o", "a.csv")
    title, heading, *rows = shown.output.splitlines()
    assert title == "Answers for family (local data), known ones left out"
    assert heading.split() == ["position", "head", "relation", "tail", "score"]
    expected = [
        f"{n} {h} lives in Oslo {s:.4f}" for n, h, s in pd.read_csv("a.csv")[["position", "head", "score"]].values
    ]
    assert [" ".join(row.split()) for row in rows] == expected
    assert not list(Path().glob("*.parquet"))


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ((), "-o FILE is needed; only the answers to one question, --relation, are shown without."),
        (("--head", "Ada"), "--head and --tail need --relation."),
        (
            ("--relation", "lives in"),
            "Error: --head or --tail: give the head or the tail, got (None, 'lives in', None)",
        ),
        (("--relation", "lives"), "Error: --head or --tail: give the head or the tail, got (None, 'lives', None)"),
        (
            ("--head", "Ada", "--relation", "lives"),
            "Error: --relation: unknown relation 'lives'; known: lives in, neigh",
        ),
        (
            ("--tail", "Olso", "--relation", "lives in"),
            "Error: --head or --tail: unknown entity 'Olso'; known: Ada, Ben",
        ),
    ],
)
def test_a_wrong_question_is_said_in_words(hgmm: Invoke, question: tuple[str, ...], message: str) -> None:
    write_folder(Path("family"))
    hgmm("train", "--dataset", "./family", "--epochs", "1", "--run-dir", "one", *TINY)
    result = hgmm("predict", "one", *question)
    assert result.exit_code == 2
    assert message in result.stderr
