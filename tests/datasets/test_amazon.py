from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hgmm.datasets import amazon, check_published, info, load
from tests.datasets.official_files import write_amazon


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(amazon, "WIDTH", 6)


def test_the_stand_in_has_the_published_numbers_and_images_on_items_only(tmp_path: Path) -> None:
    graph = load("amazon", root=tmp_path)
    check_published(graph, info("amazon"))
    assert graph.schema.widths("item") == {"text": 6, "image": 6}
    assert graph.schema.widths("review") == {"text": 6}
    assert graph.g.in_degrees(etype="ir").max() > 1000
    assert (graph.g.in_degrees(etype="ii") == 0).sum() > 1000


def test_relations_0_and_1_become_one_and_repetitions_count_once(tmp_path: Path) -> None:
    stand_in = load("amazon", root=tmp_path)
    write_amazon(stand_in, tmp_path / "amazon")
    graph = load("amazon", root=tmp_path)
    assert graph.source.absent == ("item.text", "review.text", "item.image")
    for etype in stand_in.schema.canonical_etypes:
        pairs = [torch.stack(g.g.edges(etype=etype)).unique(dim=1) for g in (stand_in, graph)]
        assert torch.equal(*pairs)


def test_the_published_settings() -> None:
    settings = info("amazon").settings_for("modal2_missing")
    assert settings["model.fill"] == "zeros"
    assert settings["train.epochs"] == 100


def test_the_real_graph_without_features(real_data: Path) -> None:
    graph = load("amazon", root=real_data)
    assert graph.source.source == "local"
    assert graph.source.note.startswith("real data of 'amazon', treated as absent: item.text (feature_item_amazon.npz)")
    assert graph.schema.modality_names == ("structure",)
    degrees = {etype: graph.g.in_degrees(etype=etype) for etype in ("ii", "ir", "ri")}
    assert {etype: int(d.max()) for etype, d in degrees.items()} == {"ii": 122, "ir": 2986, "ri": 1035}
    assert {etype: int((d == 0).sum()) for etype, d in degrees.items()} == {"ii": 1743, "ir": 0, "ri": 1579}
    assert int(((degrees["ii"] == 0) & (degrees["ri"] == 0)).sum()) == 561
