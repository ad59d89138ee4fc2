from __future__ import annotations

import io
import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rich.console import Console

from hgmm import datasets
from hgmm.cli.results import Announcement, data_words, print_config
from hgmm.training import Interrupted, RunConfig, RunRecord, session, trainer
from tests.cli.conftest import SMALL, Invoke
from tests.datasets.published_folders import write_magb


def record_of(run_dir: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(Path(run_dir, "record.json").read_text())
    return record


def test_train_shows_configuration_progress_scores_and_next_steps(hgmm: Invoke, graph_folder: str) -> None:
    result = hgmm("train", "--dataset", graph_folder, "--epochs", "2", "--seed", "3", *SMALL)
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines[0].startswith("data: dataset=./small")
    assert "hidden_size=8" in lines[1]
    assert lines[2].startswith("train: epochs=2")
    assert lines[3] == "negative: weight=0.0"
    assert "./small · hgnn-ima sharp · seed 3" in lines
    assert any(line.startswith("epoch 2/2  loss ") and "best" in line for line in lines)
    assert "Test scores on small (local data)" in lines
    (run,) = Path("runs").iterdir()
    assert f"run folder: {run}" in lines
    assert f"next: hgmm predict {run} -o predictions.csv" in lines
    record = record_of(str(run))
    assert (record["status"], record["seed"]) == ("done", 3)
    assert any(line.split() == ["micro-F1", f"{record['test']['micro_f1']:.4f}"] for line in lines)


@pytest.mark.parametrize("terminal", [False, True])
def test_settings_are_folded_between_words_on_a_terminal_only(terminal: bool) -> None:
    console = Console(file=io.StringIO(), width=60, force_terminal=terminal, color_system=None)
    print_config(console, RunConfig())
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 4 if not terminal else max(map(len, lines)) <= 60
    words = [word for line in lines for word in line.split()]
    assert "checkpoint_seconds=5.0" in words
    assert {"data:", "model:", "train:", "negative:"} == {word for word in words if "=" not in word}


def test_feature_files_can_be_chosen_and_are_used_again(hgmm: Invoke, tmp_path: Path) -> None:
    write_magb(tmp_path / "Grocery")
    choice = ("--feature", "text=Llama", "--feature", "image=swinv2", "--shots", "3")
    result = hgmm("train", "--dataset", "./Grocery", "--epochs", "1", "--run-dir", "runs/g", *choice, *SMALL)
    assert result.exit_code == 0, result.output
    record = record_of("runs/g")
    assert record["config"]["data"]["features"] == ["text=Llama", "image=swinv2"]
    assert "TextFeature/GroceryS_Llama_3.2_1B_Instruct_256_mean.npy" in record["data"]["files"]
    result = hgmm("predict", "runs/g", "-o", "p.csv")
    assert result.output == "40 predictions for Grocery (local data) in p.csv\n"


def test_a_joined_file_is_split_where_it_is_said(hgmm: Invoke, tmp_path: Path) -> None:
    write_magb(tmp_path / "Grocery")
    choice = ("--feature", "joined=LLAMA8B_CLIP", "--split-at", "6")
    result = hgmm("train", "--dataset", "./Grocery", "--epochs", "1", "--run-dir", "runs/g", *choice, *SMALL)
    assert result.exit_code == 0, result.output
    assert record_of("runs/g")["config"]["data"]["split_at"] == 6


def test_data_can_be_corrupted_and_results_say_so(hgmm: Invoke, graph_folder: str) -> None:
    damage = ("--corrupt", "image=0.5", "--corrupt", "labels=0.5")
    result = hgmm("train", "--dataset", graph_folder, "--epochs", "1", "--run-dir", "runs/bad", *damage, *SMALL)
    assert result.exit_code == 0, result.output
    assert "./small with image=0.5, labels=0.5 · hgnn-ima sharp · seed 0" in result.output
    assert "image taken from 3 of 6 item, another class for 3 of 6 training nodes" in " ".join(result.output.split())
    assert "Test scores on small (local data corrupted by missing:image=0.5, labels=0.5)" in result.output
    assert record_of("runs/bad")["config"]["data"]["corrupt"] == ["image=0.5", "labels=0.5"]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("imgae=0.5", "unknown modality 'imgae'; known: image, structure, text. Did you mean 'image'?"),
        ("image=5", "a share is from 0 to 1, got 5.0"),
    ],
)
def test_a_wrong_corruption_is_refused(hgmm: Invoke, graph_folder: str, entry: str, message: str) -> None:
    result = hgmm("train", "--dataset", graph_folder, "--corrupt", entry, *SMALL)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_seed_zero_is_a_seed(hgmm: Invoke, graph_folder: str) -> None:
    result = hgmm("train", "--dataset", graph_folder, "--epochs", "1", "--set", "train.seed=5", "--seed", "0", *SMALL)
    assert "seed=0" in result.output


def test_several_runs_give_mean_and_deviation(hgmm: Invoke, graph_folder: str) -> None:
    args = ("train", "--dataset", graph_folder, "--epochs", "1", "--runs", "2", "--run-dir", "runs/two", *SMALL)
    result = hgmm(*args)
    record = record_of("runs/two")
    assert [run["seed"] for run in record["runs"]] == [0, 1]
    assert "(local data, 2 runs)" in result.output
    assert f"{record['test']['accuracy']:.4f} ± {record['test_std']['accuracy']:.4f}" in result.output
    assert "(run 2 of 2)" in result.output
    assert "hgmm predict runs/two/seed-0" in result.output


def test_options_win_over_the_file_and_set(hgmm: Invoke, graph_folder: str, tmp_path: Path) -> None:
    settings = {"train": {"epochs": 7, "learning_rate": 0.5}, "model": {"dropout": 0.25}}
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    options = ("--config", "settings.json", "--epochs", "1", "--set", "train.epochs=4", "--run-dir", "run")
    hgmm("train", "--dataset", graph_folder, *options, *SMALL)
    config = record_of("run")["config"]
    assert (config["train"]["epochs"], config["train"]["learning_rate"]) == (1, 0.5)
    assert config["model"]["dropout"] == 0.25


def test_ablations_of_losses_are_weights(hgmm: Invoke, graph_folder: str) -> None:
    ablate = ("--ablate", "L_att", "--ablate", "L_ind", "--ablate", "nei")
    hgmm("train", "--dataset", graph_folder, "--epochs", "1", "--run-dir", "run", *ablate, *SMALL)
    config = record_of("run")["config"]
    assert config["model"]["ablate"] == ["nei"]
    assert (config["train"]["missing_attention_weight"], config["train"]["branch_weight"]) == (0.0, 0.0)


def test_dropped_modalities_are_named_in_the_title(hgmm: Invoke, graph_folder: str) -> None:
    result = hgmm("train", "--dataset", graph_folder, "--drop-modality", "image", "--epochs", "1", *SMALL)
    assert "./small without image · hgnn-ima sharp" in result.output


def test_resume_of_a_finished_run_shows_it_again(hgmm: Invoke, trained: str) -> None:
    before = record_of(trained)
    result = hgmm("train", "--run-dir", trained, "--resume")
    assert result.exit_code == 0
    assert "Test scores on small" in result.output
    assert record_of(trained) == before


def test_resume_needs_a_folder(hgmm: Invoke) -> None:
    result = hgmm("train", "--resume")
    assert result.exit_code == 2
    assert "--resume needs --run-dir" in result.output


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--dataset", "emojy"), "Error: --dataset: unknown dataset 'emojy'. Did you mean 'emoji' or"),
        (("--dataset", "./nowhere"), "nowhere"),
        (("--set", "train.epoch=3"), "unknown key 'epoch'. Did you mean 'train.epochs'?"),
        (("--set", "trian.epochs=3"), "Error: --set: unknown section 'trian'"),
        (("--set", "lr=3"), "A key begins with its section, as in train.learning_rate"),
        (("--set", "epochs"), "--set 'epochs': must be written key=value"),
        (("--set", "train.epochs=0"), "Error: --set train.epochs: must be at least 1, got 0"),
        (("--set", "model.num_layers=0"), "Error: --set model.num_layers: must be at least 1, got 0"),
        (("--epochs", "0"), "Error: --epochs: must be at least 1, got 0"),
        (("--config", "wrong.yaml"), "Error: train.epochs in wrong.yaml: must be at least 1, got 0"),
        (
            ("--config", "tab.yaml"),
            "tab.yaml, line 2, column 1: expected blanks at the beginning of the line, got a tab",
        ),
        (("--config", "section.yaml"), "Error: --config section.yaml: unknown section 'trian'"),
        (("--model", "gcn"), "Error: --model: unknown model 'gcn'"),
        (("--variant", "shrp"), "Error: --variant: unknown variant 'shrp'"),
        (("--ablate", "neii"), "Error: --ablate: unknown ablate 'neii'"),
        (("--drop-modality", "txt"), "Error: --drop-modality: unknown modality 'txt'"),
        (("--corrupt", "txt=0.3"), "Error: --corrupt: 'missing:txt=0.3' on graph 'emoji': unknown modality 'txt'"),
        (("--corrupt", "text=3"), "Error: --corrupt of 'missing:text': a share is from 0 to 1, got 3.0"),
        (("--feature", "txt=a"), "Error: --feature: unknown part 'txt'"),
        (("--dataset", "synthetic", "--require-official"), "but --require-official is given"),
        (("--device", "tpu"), "Error: --device: must be auto, cpu, cuda or cuda:N, got 'tpu'"),
        (("--run-dir", "nothing", "--resume"), "--resume: nothing has no config.yaml, so no run to go on with"),
    ],
)
def test_wrong_settings_exit_with_2_and_no_traceback(hgmm: Invoke, args: tuple[str, ...], message: str) -> None:
    Path("wrong.yaml").write_text("train: {epochs: 0}\n")
    Path("tab.yaml").write_text("train:\n\tepochs: 1\n")
    Path("section.yaml").write_text("trian:\n  epochs: 1\n")
    result = hgmm("train", *args)
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: ")
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--learning-rate", "No such option '--learning-rate'. Did you mean --set train.learning_rate=VALUE?"),
        ("--lr", "No such option '--lr'. Did you mean --set train.learning_rate=VALUE?"),
        ("--epoch", "No such option '--epoch'. Did you mean --epochs?"),
        ("--colour", "No such option '--colour'. hgmm train --help lists them."),
    ],
)
def test_an_unknown_option_is_looked_for_among_the_settings(hgmm: Invoke, option: str, words: str) -> None:
    result = hgmm("train", option, "3")
    assert result.exit_code == 2
    assert f"Error: {words}\n" in result.stderr


@pytest.mark.parametrize("given", ["--backend", "HGMM_BACKEND"])
def test_kernels_that_cannot_run_here_are_refused_before_data_is_read(
    hgmm: Invoke, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr("hgmm.kernels._triton.missing_reason", lambda: "torch sees no CUDA device")
    monkeypatch.setattr("hgmm.datasets.load", lambda *args, **kwargs: pytest.fail("data was read"))
    monkeypatch.setenv("HGMM_BACKEND", "auto" if given == "--backend" else "triton")
    result = hgmm("train", *(("--backend", "triton") if given == "--backend" else ()))
    assert result.exit_code == 2
    named = "--backend triton" if given == "--backend" else "environment variable HGMM_BACKEND=triton"
    assert result.stderr.startswith(f"Error: {named}: these kernels cannot run here: ")
    assert "torch sees no CUDA device. Take what can: " in result.stderr
    assert not Path("runs").exists()


def test_a_backend_for_another_device_is_refused(hgmm: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HGMM_BACKEND", "auto")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr("hgmm.kernels._dispatch._unavailable_reasons", lambda op, backend: [])
    result = hgmm("train", "--backend", "triton", "--device", "cpu")
    assert result.exit_code == 2
    assert "--backend triton: these kernels cannot run here: they run on cuda, and the device is cpu" in result.stderr


@pytest.mark.parametrize("command", [("predict", "x", "-o", "p.csv"), ("embed", "x", "-o", "p.npz"), ("evaluate", "x")])
def test_an_unknown_backend_in_the_environment_is_refused_first(
    hgmm: Invoke, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setenv("HGMM_BACKEND", "quantum")
    assert "Error: environment variable HGMM_BACKEND: unknown backend 'quantum'" in hgmm(*command).stderr


def test_a_run_that_never_began_leaves_nothing(hgmm: Invoke, graph_folder: str) -> None:
    result = hgmm("train", "--dataset", graph_folder, "--model", "graph-mnl", "--epochs", "1", "--runs", "2")
    assert result.exit_code == 2
    assert not Path("runs").exists()
    named = hgmm("train", "--dataset", graph_folder, "--model", "graph-mnl", "--epochs", "1", "--run-dir", "mine")
    assert named.exit_code == 2
    assert record_of("mine")["status"] == "failed"


def test_a_run_that_fails_later_says_where_its_record_is(
    hgmm: Invoke, graph_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    finite = trainer._check_finite
    monkeypatch.setattr(
        trainer, "_check_finite", lambda loss, what: finite(float("nan") if "epoch 3" in what else loss, what)
    )
    result = hgmm("train", "--dataset", graph_folder, "--epochs", "5", *SMALL)
    assert result.exit_code == 2
    (run,) = Path("runs").iterdir()
    assert result.stderr.splitlines()[0] == f"The run failed after 2 epochs; its record is in {run}"
    assert "Error: training: the loss of epoch 3 is nan; lower train.learning_rate" in result.stderr
    assert record_of(str(run))["status"] == "failed"


def test_a_folder_that_is_refused_is_not_called_a_failed_run(hgmm: Invoke, graph_folder: str, trained: str) -> None:
    result = hgmm("train", "--dataset", graph_folder, "--epochs", "1", "--run-dir", trained, *SMALL)
    assert result.exit_code == 2
    assert result.stderr == (
        "Error: --run-dir runs/one: it exists and is not empty; choose another, or go on with that run by --resume\n"
    )
    assert record_of(trained)["status"] == "done"


def test_debug_shows_the_error_itself(hgmm: Invoke) -> None:
    with pytest.raises(ValueError, match="unknown dataset 'emojy'"):
        hgmm("--debug", "train", "--dataset", "emojy")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_exits_with_its_number_and_says_how_to_resume(
    hgmm: Invoke, graph_folder: str, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int
) -> None:
    def stop(*args: object, run_dir: Path, **kwargs: object) -> RunRecord:
        raise Interrupted(number, run_dir)

    monkeypatch.setattr("hgmm.training.train_run", stop)
    monkeypatch.setattr("hgmm.training.train_runs", stop)
    one = hgmm("train", "--dataset", graph_folder, "--run-dir", "here")
    assert one.exit_code == code
    assert f"Stopped by {number.name}" in one.stderr
    assert "hgmm train --run-dir here --resume" in one.stderr
    several = hgmm("train", "--dataset", graph_folder, "--run-dir", "my runs", "--runs", "3")
    assert "hgmm train --run-dir 'my runs' --runs 3 --resume" in several.stderr


def test_backend_reaches_the_kernels(hgmm: Invoke, graph_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HGMM_BACKEND", "auto")
    assert hgmm("train", "--dataset", graph_folder, "--epochs", "1", "--backend", "reference", *SMALL).exit_code == 0
    assert "Invalid value for '--backend'" in hgmm("train", "--backend", "quantum").output


def test_synthetic_data_is_said_in_words_before_and_after(hgmm: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, relations = {"item": 60, "user": 20}, {("user", "buys", "item"): 100}
    small = datasets.synthetic(sizes, relations, {"item": {"text": 4}})
    monkeypatch.setattr(session.datasets, "load", lambda *args, **kwargs: small)
    result = hgmm("train", "--dataset", "synthetic", "--epochs", "1", *SMALL)
    assert result.exit_code == 0
    before, after = result.output.split("epoch 1/1")
    assert "This is synthetic data" in before
    assert "Test scores on synthetic (SYNTHETIC data)" in after


def test_published_scores_stand_beside_official_data(hgmm: Invoke, trained: str) -> None:
    record = record_of(trained)
    record["dataset"] = "imdb"
    record["data"]["source"] = "official"
    Path(trained, "record.json").write_text(json.dumps(record))
    shown = hgmm("train", "--run-dir", trained, "--resume").output
    assert "Test scores on imdb (published data)" in shown
    assert "published (modal2_missing)" in shown
    assert "0.7578" in shown


def test_published_scores_do_not_stand_beside_a_part_of_the_data(hgmm: Invoke, trained: str) -> None:
    record = record_of(trained)
    record["dataset"] = "imdb"
    record["data"]["absent"] = ["movie.image"]
    Path(trained, "record.json").write_text(json.dumps(record))
    shown = hgmm("train", "--run-dir", trained, "--resume").output
    assert "Test scores on imdb (local data without movie.image)" in shown
    assert "0.7578" not in shown


def test_data_words_know_a_record_without_data() -> None:
    assert data_words({}) == "unknown data"


def test_announcement_is_made_once(small_graph: Any) -> None:
    import io

    from rich.console import Console

    from hgmm.graph import DataSource

    out = io.StringIO()
    small_graph.source = DataSource("local", absent=("item.image",), note="no image of any item")
    announcement = Announcement(Console(file=out, width=100))
    for _ in range(2):
        announcement.on_fit_start(None, small_graph)  # type: ignore[arg-type]
    announcement.on_step(1, 1)
    assert out.getvalue().count("no image of any item") == 1


def test_default_dataset_is_emoji() -> None:
    assert RunConfig().data.dataset == "emoji"


def test_negative_learning_is_on_for_graph_mnl_and_can_be_put_on_hgnn_ima(hgmm: Invoke, graph_folder: str) -> None:
    small = ("--epochs", "3", "--set", "model.hidden_size=8", "--set", "train.num_threads=1")
    soon = ("--set", "negative.variant=nl", "--set", "negative.warmup_epochs=0", "--set", "negative.ramp_epochs=1")
    one = hgmm("train", "--dataset", graph_folder, "--model", "graph-mnl", "--run-dir", "one", *small, *soon)
    weight = ("--set", "negative.weight=0.5", "--set", "model.num_heads=2")
    two = hgmm("train", "--dataset", graph_folder, "--run-dir", "two", *small, *soon, *weight)
    for result, folder, expected in ((one, "one", 0.3), (two, "two", 0.5)):
        assert result.exit_code == 0, result.output
        assert f"negative: weight={expected}  variant=nl" in result.output
        record = record_of(folder)
        assert record["config"]["negative"]["weight"] == expected
        assert set(record["epochs"][0]["figures"]) == {"transfer", "branch_accuracy"}
    hgmm("predict", "one", "-o", "p.csv")
    header = Path("p.csv").read_text().splitlines()[0].split(",")
    assert {"weight_raw:text", "weight_structure", "weight_propagated:image"} <= set(header)


def test_two_classes_are_refused_with_the_way_out(hgmm: Invoke, graph_folder: str) -> None:
    result = hgmm("train", "--dataset", graph_folder, "--model", "graph-mnl", "--epochs", "1")
    assert result.exit_code == 2
    assert "take negative.variant=nl, or negative.weight=0" in result.stderr


def test_a_run_from_before_there_was_negative_learning_can_be_resumed(hgmm: Invoke, trained: str) -> None:
    for name in ("record.json", "config.yaml"):
        path = Path(trained, name)
        data = yaml.safe_load(path.read_text())
        config = data["config"] if name == "record.json" else data
        del config["negative"]
        path.write_text(json.dumps(data) if name == "record.json" else yaml.safe_dump(data))
    assert hgmm("train", "--run-dir", trained, "--resume").exit_code == 0
    assert hgmm("evaluate", trained).exit_code == 0


def test_the_sampler_of_negatives_is_an_option(hgmm: Invoke, tmp_path: Path) -> None:
    write_knowledge_folder(tmp_path / "kg")
    words = ("train", "--dataset", "./kg", "--model", "mm-transe", "--epochs", "2", "--set", "model.dim=4")
    result = hgmm(*words, "--sampler", "mans-h", "--run-dir", "run")
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert record["config"]["link"]["sampler"] == "mans-h"
    assert 0.25 < record["epochs"][0]["figures"]["negatives"]["modal"] < 0.35
    wrong = hgmm(*words, "--sampler", "mans", "--run-dir", "other")
    assert wrong.exit_code == 2
    assert "--sampler: unknown sampler 'mans'" in wrong.stderr
    assert not (tmp_path / "other").exists()


def test_errors_of_link_settings_name_the_option(hgmm: Invoke, tmp_path: Path) -> None:
    write_knowledge_folder(tmp_path / "kg")
    words = ("train", "--dataset", "./kg", "--model", "mm-transe", "--set", "link.margin=-1")
    result = hgmm(*words)
    assert result.exit_code == 2
    assert "--set link.margin: must be at least 0" in result.stderr


def write_knowledge_folder(folder: Path) -> None:
    """Write triples of a circle as names, with a picture of each entity."""
    folder.mkdir()
    rows = [f"e{i:02d}\tnext\te{(i + 1) % 20:02d}\n" for i in range(20)]
    for name, part in (("train", rows[:16]), ("valid", rows[16:18]), ("test", rows[18:])):
        (folder / f"{name}.tsv").write_text("".join(part))
    (folder / "entities.txt").write_text("".join(f"e{i:02d}\n" for i in range(20)))
    np.save(folder / "image.npy", np.random.default_rng(0).normal(size=(20, 3)).astype("float32"))
