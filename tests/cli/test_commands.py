"""The commands that use what was trained or show what there is; ``train`` has a file of its own."""

from __future__ import annotations

import errno
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from safetensors import safe_open

from hgmm import __version__, datasets, training
from hgmm.cli import main
from hgmm.cli.completion import dataset_names, model_names, run_folders
from tests.cli.conftest import Invoke
from tests.datasets.published_folders import write_magb, write_mm_links

GRAPH_YAML = """
target: item
nodes:
  item: {table: item.csv, id: id, label: label, split: split, modalities: {numeric: {columns: [price]}}}
  user: {table: user.csv, id: id}
edges:
  - {type: [user, buys, item], table: buys.csv, src: user, dst: item, reverse: bought_by}
"""


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "graph.yaml").write_text(GRAPH_YAML)
    rows = [f"i{n},{n}.5,{'ab'[n % 2]},{('train', 'val', 'test')[n // 2]}" for n in range(6)]
    (folder / "item.csv").write_text("\n".join(["id,price,label,split", *rows]) + "\n")
    (folder / "user.csv").write_text("id\nu0\nu1\n")
    (folder / "buys.csv").write_text("user,item\nu0,i0\nu0,i2\nu1,i1\nu1,i3\n")
    return folder


def test_version(hgmm: Invoke) -> None:
    assert hgmm("--version").output == f"hgmm, version {__version__}\n"


def test_predict_writes_a_table(hgmm: Invoke, trained: str) -> None:
    result = hgmm("predict", trained, "-o", "out/predictions.csv")
    assert result.output == "12 predictions for small (local data) in out/predictions.csv\n"
    table = pd.read_csv("out/predictions.csv")
    assert list(table.columns[:4]) == ["id", "predicted", "probability_even", "probability_odd"]
    assert {"weight_text", "weight_image", "source"} <= set(table.columns)
    assert list(table["id"]) == [f"i{n}" for n in range(12)]


def test_predict_writes_parquet_equal_to_csv(hgmm: Invoke, trained: str) -> None:
    hgmm("predict", trained, "-o", "p.csv")
    hgmm("predict", trained, "-o", "p.parquet", "--dataset", "./small")
    pd.testing.assert_frame_equal(pd.read_csv("p.csv"), pd.read_parquet("p.parquet"), check_dtype=False)


@pytest.mark.parametrize(("command", "name"), [("predict", "p.txt"), ("embed", "e.pt")])
def test_an_unknown_ending_is_refused_before_any_work(hgmm: Invoke, command: str, name: str) -> None:
    result = hgmm(command, "no-such-run", "-o", name)
    assert result.exit_code == 2
    assert f"got '{Path(name).suffix}'" in result.stderr


def test_a_folder_without_a_run_is_an_error(hgmm: Invoke) -> None:
    result = hgmm("predict", "no-such-run", "-o", "p.csv")
    assert result.exit_code == 2
    assert "no-such-run" in result.stderr


def test_embeddings_are_equal_in_all_formats(hgmm: Invoke, trained: str) -> None:
    for ending in ("csv", "parquet", "npz", "safetensors"):
        result = hgmm("embed", trained, "-o", f"e.{ending}")
        assert result.output == f"12 vectors of width 8 for small (local data) in e.{ending}\n"
    with np.load("e.npz", allow_pickle=False) as archive:
        ids, values = archive["ids"].tolist(), archive["embedding"]
    assert values.shape == (12, 8)
    for table in (pd.read_csv("e.csv"), pd.read_parquet("e.parquet")):
        assert table["id"].tolist() == ids
        np.testing.assert_allclose(table.drop(columns="id").to_numpy(), values, rtol=1e-6)
    with safe_open("e.safetensors", framework="numpy") as file:
        assert json.loads(file.metadata()["ids"]) == ids
        np.testing.assert_array_equal(file.get_tensor("embedding"), values)


def test_evaluate_agrees_with_the_record(hgmm: Invoke, trained: str) -> None:
    test = json.loads(Path(trained, "record.json").read_text())["test"]
    result = hgmm("evaluate", trained)
    assert "Scores on small, test nodes (local data)" in result.output
    assert f"{test['macro_f1']:.4f}" in result.output
    assert "val nodes" in hgmm("evaluate", trained, "--split", "val").output


def test_runs_are_listed(hgmm: Invoke, trained: str) -> None:
    row = hgmm("runs").output.splitlines()[1].split()
    assert row[:5] == ["one", "small", "(local", "data)", "sharp"]
    assert row[-1] == "done"


def test_runs_too_wide_for_the_terminal_are_listed_in_lines(
    hgmm: Invoke, trained: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "emoji-hgnn-ima-20260101-120000"
    Path(trained).rename(f"runs/{name}")
    monkeypatch.setenv("COLUMNS", "60")
    first, *values = hgmm("runs").output.splitlines()
    assert first == name
    assert all(line.startswith("  ") and len(line.rstrip()) == len(line) <= 60 for line in values)
    text = " ".join(line.strip() for line in values)
    assert text.startswith("data small (local data), variant sharp, seeds 1, micro-F1 ")
    assert text.endswith(", status done")


@pytest.mark.parametrize("folder", ["runs", "empty"])
def test_no_runs_say_how_to_start_one(hgmm: Invoke, folder: str) -> None:
    if folder == "runs":
        assert "There are no runs in runs. Start one with: hgmm train" in hgmm("runs").output
    Path(folder).mkdir()
    result = hgmm("runs", folder)
    assert (result.exit_code, result.stdout) == (0, f"There are no runs in {folder}. Start one with: hgmm train\n")


def test_a_folder_of_runs_that_does_not_exist_is_an_error(hgmm: Invoke) -> None:
    result = hgmm("runs", "nope")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        "Error: folder of runs nope: there is no such folder; name the one that holds run folders\n"
    )


@pytest.mark.parametrize("content", ["{", "[]", '{"schema_version": 1, "test": 3}'])
def test_a_broken_record_is_named_and_the_others_are_listed(hgmm: Invoke, trained: str, content: str) -> None:
    Path("runs/broken").mkdir()
    Path("runs/broken/record.json").write_text(content)
    result = hgmm("runs")
    assert result.exit_code == 0
    assert result.stderr.startswith("Warning: left out: runs/broken/record.json: ")
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["run", "one"]


def test_a_mistyped_run_is_suggested(hgmm: Invoke, trained: str) -> None:
    for command in (
        ("predict", "runs/on", "-o", "p.csv"),
        ("evaluate", "one"),
        ("train", "--resume", "--run-dir", "ones"),
    ):
        result = hgmm(*command)
        assert result.exit_code == 2
        assert "Did you mean runs/one? All of them: hgmm runs" in result.stderr


def test_datasets_are_listed(hgmm: Invoke) -> None:
    first = [line.split()[0] for line in hgmm("datasets", "list").output.splitlines() if line]
    assert set(datasets.available()) <= set(first)


def test_datasets_list_says_which_need_no_files(hgmm: Invoke) -> None:
    words = " ".join(hgmm("datasets", "list").output.split())
    assert "Without published files: emoji, emoji-kg, films, nations, planted-imbalance, synthetic" in words
    assert "To fetch those of another: hgmm datasets fetch NAME" in words


def test_without_a_terminal_lines_have_80_columns_and_whole_words(
    hgmm: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("COLUMNS")
    root = str(tmp_path / ("long" * 20))
    for command in (("datasets", "list"), ("datasets", "info", "imdb"), ("doctor", "--data-root", root)):
        lines = hgmm(*command).output.splitlines()
        # An address or a path that is longer than the line stays whole, on a line of its own.
        long = [line.split() for line in lines if len(line) > 80]
        assert all(len(words[-1]) > 40 for words in long), long
    assert root in " ".join(hgmm("doctor", "--data-root", root).output.split()).split()


def test_datasets_info_keeps_apart_what_it_counts(hgmm: Invoke) -> None:
    sections = [part.splitlines() for part in hgmm("datasets", "info", "imdb").output.split("\n\n")]
    found = {lines[0]: [line.split() for line in lines[1:]] for lines in sections}
    assert found["Nodes by type"] == [["movie", "4,278"], ["director", "2,081"], ["actor", "5,257"]]
    assert found["Edges by relation"] == [["md", "4,278"], ["dm", "4,278"], ["ma", "12,828"], ["am", "12,828"]]
    assert found["Classes"] == [["number", "3"], ["movie", "nodes", "of", "each", "1,135", "1,584", "1,559"]]
    assert found["Split"] == [["train,", "val,", "test", "855", "855", "2,568"]]
    assert ["micro-F1", "0.7578"] in found["Published test scores, with modal2_missing"]
    assert ["train.epochs", "30"] in found["Settings of hgmm train, with hgnn-ima sharp"]
    assert ["missing", "rdf.npy"] in found["Published files"]
    assert "Classes" not in hgmm("datasets", "info", "books-lp").output


def test_tables_without_a_terminal_end_where_their_text_ends(hgmm: Invoke, trained: str) -> None:
    outputs = [hgmm(*words).output for words in (("datasets", "list"), ("runs",), ("datasets", "info", "imdb"))]
    assert [line for output in outputs for line in output.splitlines() if line != line.rstrip()] == []
    assert outputs[1].splitlines()[0].startswith("run  data ")


def test_datasets_info_says_what_is_missing(hgmm: Invoke, tmp_path: Path) -> None:
    (tmp_path / "data" / "imdb").mkdir(parents=True)
    (tmp_path / "data" / "imdb" / "labels.npy").touch()
    output = hgmm("datasets", "info", "imdb").output
    assert "there   labels.npy" in output
    assert "missing rdf.npy" in output
    assert "micro-F1  0.7578" in output


def test_datasets_info_tells_what_leaks(hgmm: Invoke, tmp_path: Path) -> None:
    folder = tmp_path / "graph"
    folder.mkdir()
    for name, rows in (("train", "a\tr\tb\nb\tr\ta\na\tr\tb\n"), ("val", "a\tr\tc\n"), ("test", "a\tr\tb\n")):
        (folder / f"{name}.tsv").write_text(rows)
    output = hgmm("datasets", "info", str(folder)).output
    assert "Triples: 3 train, 1 val, 1 test\n  1 of 3 train triples are repetitions\n" in output
    assert "  1 of 1 test triples (100.0%) are also train triples\n" in output
    assert "  1 of 1 val triples have one of 1 entities or 0 relations that are in no training triple\n" in output
    assert f"Train without the leaks: hgmm train --dataset {folder} --drop-leaks\n" in output
    output = hgmm("datasets", "info", str(folder), "--drop-leaks").output
    assert "Without leaks: 2 train, 1 val, 0 test\n" in output
    (folder / "test.tsv").write_text("a\tr\n")
    result = hgmm("datasets", "info", str(folder))
    assert result.exit_code == 2
    assert "test.tsv row 1: must be 'head<TAB>relation<TAB>tail'" in result.stderr


def test_datasets_info_without_leaks_files_or_package(hgmm: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "  none is repeated, and none stands in two splits\n" in hgmm("datasets", "info", "emoji-kg").output
    output = hgmm("datasets", "info", "mkg-w").output
    assert "Get *-visual.pth by hand: https://github.com/zjukg/NATIVE\n" in output
    assert "Download what is missing: hgmm datasets fetch mkg-w\n" in output
    assert "Triples:" not in output
    monkeypatch.setattr(datasets.nations, "find_spec", lambda name: None)
    result = hgmm("datasets", "info", "nations")
    assert result.exit_code == 0
    assert "Its triples cannot be read yet: dataset nations: needs the package pykeen" in result.output


def test_datasets_info_of_an_unknown_name(hgmm: Invoke) -> None:
    result = hgmm("datasets", "info", "emojy")
    assert result.exit_code == 2
    assert "Did you mean 'emoji' or 'emoji-kg'?" in result.stderr


def test_datasets_fetch_of_embedded_data(hgmm: Invoke) -> None:
    assert hgmm("datasets", "fetch", "emoji").output == "The data set emoji needs no files.\n"


def test_datasets_fetch_names_the_files(hgmm: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(name: str, *, root: object, options: datasets.SourceOptions) -> list[Path]:
        return [Path(name, file) for file in ("labels.npy", "rdf.npy", *options.files.values())]

    monkeypatch.setattr(datasets, "fetch", fetch)
    assert hgmm("datasets", "fetch", "imdb").output == "imdb/labels.npy\nimdb/rdf.npy\n"
    chosen = hgmm("datasets", "fetch", "imdb", "--feature", "text=llama").output
    assert chosen == "imdb/labels.npy\nimdb/rdf.npy\nimdb/llama\n"


def test_datasets_info_finds_files_by_their_pattern(hgmm: Invoke, tmp_path: Path) -> None:
    write_magb(tmp_path / "data" / "MAGB" / "Grocery")
    shutil.rmtree(tmp_path / "data" / "MAGB" / "Grocery" / "ImageFeature")
    lines = hgmm("datasets", "info", "grocery").output.splitlines()
    assert lines[-4:-1] == ["  there   *Graph.pt", "  there   TextFeature/*.npy", "  missing ImageFeature/*.npy"]
    assert lines[-1] == "Download what is missing: hgmm datasets fetch grocery"
    shutil.copytree(
        tmp_path / "data" / "MAGB" / "Grocery" / "TextFeature", tmp_path / "data" / "MAGB" / "Grocery" / "ImageFeature"
    )
    assert "Download" not in hgmm("datasets", "info", "grocery").output


def test_datasets_info_reads_no_vectors_for_links_of_one_relation(hgmm: Invoke, tmp_path: Path) -> None:
    write_mm_links(tmp_path / "data" / "mm-graph" / "books-lp", "lp-edge-split.pt")
    (tmp_path / "data" / "mm-graph" / "books-lp" / "clip_feat.pt").write_bytes(b"not to be read")
    output = hgmm("datasets", "info", "books-lp").output
    assert "  there   lp-edge-split*.pt" in output
    assert "Triples:" not in output


def test_an_imported_knowledge_graph_says_what_leaks(hgmm: Invoke, tmp_path: Path) -> None:
    (tmp_path / "kg").mkdir()
    for name in ("train", "val", "test"):
        (tmp_path / "kg" / f"{name}.tsv").write_text("a\tr\tb\n")
    output = hgmm("import", str(tmp_path / "kg"), "-o", "saved").output
    assert "1 of 1 test triples (100.0%) are also train triples" in " ".join(output.split())
    assert "Triples: 1 train, 1 val, 1 test" in hgmm("datasets", "info", "./saved").output


def test_import_shows_what_is_in_the_graph(hgmm: Invoke, tables: Path) -> None:
    result = hgmm("import", "shop", "-o", "shop-graph")
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.output.splitlines()]
    assert ["item", "6", "2", "numeric", "numeric", "1", "100.0", "%", "column", "price"] in rows
    assert ["user", "→", "buys", "→", "item", "4", "out", "2", "2", "2", "2", "2", "2"] in rows
    assert ["a", "3", "50.0", "%", "1", "1", "1"] in rows
    assert any(row[:5] == ["item", "→", "bought_by", "→", "user"] and row[-2:] == ["100.0", "%"] for row in rows)
    assert "Next: hgmm train --dataset ./shop-graph" in result.output
    assert Path("shop-graph/schema.json").is_file()


def test_import_quotes_the_next_command(hgmm: Invoke, tables: Path) -> None:
    assert "Next: hgmm train --dataset './my graph'" in hgmm("import", "shop", "-o", "my graph").output


def test_import_lists_all_problems_and_writes_nothing(hgmm: Invoke, tables: Path) -> None:
    (tables / "buys.csv").write_text("user,item\nu7,i0\nu0,i9\n")
    result = hgmm("import", "shop", "-o", "shop-graph")
    assert result.exit_code == 2
    assert "'u7'" in result.stderr
    assert "'i9'" in result.stderr
    assert not Path("shop-graph").exists()


def test_doctor_finds_everything_in_order(hgmm: Invoke) -> None:
    result = hgmm("doctor")
    assert result.exit_code == 0, result.output
    assert "Everything that hgmm needs works." in result.output
    assert "reference: works" in result.output


def test_doctor_exits_with_1_and_the_fix(hgmm: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HGMM_BACKEND", "quantum")
    result = hgmm("doctor")
    assert result.exit_code == 1
    assert "HGMM_BACKEND is broken" in result.output
    assert "run: unset HGMM_BACKEND" in result.output


def test_an_output_that_cannot_be_written_is_said_in_words(hgmm: Invoke, trained: str) -> None:
    Path("file").touch()
    for command, name in (
        ("predict", "p.csv"),
        ("predict", "p.parquet"),
        ("embed", "e.npz"),
        ("embed", "e.safetensors"),
    ):
        result = hgmm(command, trained, "-o", f"file/{name}")
        assert result.exit_code == 2
        assert result.stderr.startswith(f"Error: file/{name}: it cannot be written (")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError(13, "Permission denied", "runs"), "runs: the system refuses (Permission denied)"),
        (OSError("device is gone"), "Error: the system refuses (device is gone)"),
        (TimeoutError(), "the system refuses (TimeoutError)"),
    ],
)
def test_errors_of_the_system_are_said_without_a_traceback(
    hgmm: Invoke, monkeypatch: pytest.MonkeyPatch, error: OSError, words: str
) -> None:
    def refuse(folder: Path, *, on_broken: object) -> None:
        raise error

    monkeypatch.setattr(training, "list_runs", refuse)
    Path("runs").mkdir()
    result = hgmm("runs")
    assert result.exit_code == 2
    assert words in result.stderr
    with pytest.raises(type(error)):
        hgmm("--debug", "runs")


def test_a_reader_that_leaves_ends_the_command_quietly(hgmm: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(folder: Path, *, on_broken: object) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(training, "list_runs", leave)
    Path("runs").mkdir()
    result = hgmm("runs")
    assert (result.exit_code, result.output) == (1, "")


def test_keyboard_interrupt_exits_with_130(hgmm: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(folder: Path, *, on_broken: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "list_runs", stop)
    Path("runs").mkdir()
    result = CliRunner().invoke(main, ["runs"])
    assert (result.exit_code, result.stderr) == (130, "Stopped.\n")


def test_termination_removes_what_is_half_written(hgmm: Invoke, trained: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pd.DataFrame, "to_csv", lambda *args, **kwargs: signal.raise_signal(signal.SIGTERM))
    result = hgmm("predict", trained, "-o", "out/p.csv")
    assert (result.exit_code, result.stderr) == (143, "Stopped.\n")
    assert list(Path("out").iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_completion_offers_names(hgmm: Invoke, trained: str) -> None:
    context, parameter = main.make_context("hgmm", ["runs"]), main.params[0]
    assert dataset_names(context, parameter, "emo") == ["emoji", "emoji-kg"]
    assert model_names(context, parameter, "hgnn") == ["hgnn-ima"]
    assert run_folders(context, parameter, "runs/o") == ["runs/one"]
    assert run_folders(context, parameter, "x") == []


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_load_nothing_heavy(option: str) -> None:
    code = (
        "import sys; from hgmm.cli import main\n"
        f"try: main([{option!r}])\n"
        "finally: print(sorted({'torch', 'dgl', 'numpy', 'pandas'} & set(sys.modules)), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert result.stderr == "[]\n"
