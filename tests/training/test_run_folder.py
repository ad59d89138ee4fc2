from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from hgmm.errors import ConfigError, DataError
from hgmm.training import RunConfig, RunRecord, configure, default_run_dir, new_run_dir
from hgmm.training.run_folder import epochs_done

RECORD = RunRecord("failed", "node-classification", "hgnn-ima", "sharp", "emoji", 0, {}, {})
EPOCH = {"epoch": 1, "loss": 0.5, "val": {}}


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return configure()


def test_run_folders_are_named_after_what_they_hold(tmp_path: Path, config: RunConfig) -> None:
    first = new_run_dir(config, parent=tmp_path)
    assert re.fullmatch(r"emoji-hgnn-ima-\d{8}-\d{6}", first.name)
    for _ in range(3):
        assert new_run_dir(config, parent=tmp_path).is_dir()
    assert len(list(tmp_path.iterdir())) == 4


def test_a_run_folder_that_cannot_be_made(tmp_path: Path, config: RunConfig) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"run folder .*file/emoji-.*: it cannot be made \(Not a directory\)"):
        new_run_dir(config, parent=tmp_path / "file")


def fail(config: RunConfig, parent: Path, *, files: dict[str, RunRecord | str]) -> Path:
    """Write these files into a folder under a default name, then fail; return the folder."""
    path = Path()
    try:
        with default_run_dir(config, parent=parent) as path:
            for name, content in files.items():
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                if isinstance(content, RunRecord):
                    content.save(path / name)
                else:
                    (path / name).write_text(content)
            raise ConfigError("no")
    except ConfigError:
        return path


FIRST = {"config.yaml": "", "checkpoint/model.json": "{}", "": RECORD}
SEVERAL = {
    "config.yaml": "",
    "": RECORD,
    "seed-3/config.yaml": "",
    "seed-3/checkpoint/model.json": "",
    "seed-3": RECORD,
}


@pytest.mark.parametrize("files", [{}, FIRST, SEVERAL], ids=["nothing", "one run", "several runs"])
def test_a_run_that_never_began_leaves_nothing(
    tmp_path: Path, config: RunConfig, files: dict[str, RunRecord | str]
) -> None:
    fail(config, tmp_path / "runs", files=files)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "runs").mkdir()
    fail(config, tmp_path / "runs", files=files)
    assert list((tmp_path / "runs").iterdir()) == []


KEPT: dict[str, dict[str, RunRecord | str]] = {
    "failed later": FIRST | {"": dataclasses.replace(RECORD, epochs=[EPOCH])},
    "one of several failed later": SEVERAL | {"seed-3": dataclasses.replace(RECORD, epochs=[EPOCH])},
    "stopped by a signal": FIRST | {"": dataclasses.replace(RECORD, status="interrupted")},
    "has a checkpoint": FIRST | {"checkpoint/state.json": "{}"},
    "holds a file of the user's": FIRST | {"notes.txt": "mine"},
}


@pytest.mark.parametrize("files", KEPT.values(), ids=KEPT)
def test_every_other_run_keeps_its_folder_whole(
    tmp_path: Path, config: RunConfig, files: dict[str, RunRecord | str]
) -> None:
    path = fail(config, tmp_path / "runs", files=files)
    kept = {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}
    records = {str(Path(name, "record.json")) for name, content in files.items() if isinstance(content, RunRecord)}
    assert kept == {name for name, content in files.items() if isinstance(content, str)} | records


def test_a_run_that_succeeds_keeps_its_folder(tmp_path: Path, config: RunConfig) -> None:
    with default_run_dir(config, parent=tmp_path) as path:
        (path / "record.json").touch()
    assert path.is_dir()


def test_epochs_are_counted_over_all_runs(tmp_path: Path) -> None:
    assert epochs_done(tmp_path) == 0
    for seed in (0, 1):
        dataclasses.replace(RECORD, epochs=[EPOCH]).save(tmp_path / f"seed-{seed}")
    RECORD.save(tmp_path)
    assert epochs_done(tmp_path) == 2
    dataclasses.replace(RECORD, status="interrupted").save(tmp_path)
    assert epochs_done(tmp_path) is None
