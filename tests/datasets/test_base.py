from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from hgmm.datasets import DatasetInfo, available, check_published, info, load, statistics
from hgmm.datasets.base import Dataset, register
from hgmm.errors import ConfigError, DataError
from hgmm.graph import MultimodalGraph
from hgmm.registry import DATASETS


def test_info_refuses_an_unknown_task() -> None:
    with pytest.raises(ConfigError, match="unknown task 'regression'; known: link-prediction, node-classification"):
        DatasetInfo("mine", task="regression")


def test_settings_of_a_variant_win_over_those_of_the_dataset() -> None:
    info = DatasetInfo("mine", settings={"a": 1, "b": 2}, variant_settings={"sharp": {"b": 3}, "poster": {"c": 4}})
    assert info.settings_for() == {"a": 1, "b": 3}
    assert info.settings_for("poster") == {"a": 1, "b": 2, "c": 4}
    assert info.settings_for("unheard-of") == {"a": 1, "b": 2}


def test_statistics_count_nodes_edges_classes_and_splits(small_graph: MultimodalGraph) -> None:
    assert statistics(small_graph) == {
        "item": 12,
        "user": 4,
        "buys": 12,
        "bought_by": 12,
        "classes": 2,
        "class_counts": [6, 6],
        "split_sizes": [6, 2, 4],
    }


def test_check_published_lists_every_difference(small_graph: MultimodalGraph) -> None:
    info = DatasetInfo("small", published=statistics(small_graph))
    check_published(small_graph, info)
    wrong = replace(info, published={**info.published, "user": 5, "split_sizes": [6, 3, 4], "shop": 7})
    with pytest.raises(DataError) as caught:
        check_published(small_graph, wrong)
    assert str(caught.value) == (
        "dataset small: 3 problems found.\n"
        "  other than published (3):\n"
        "    - user: published 5, found 4\n"
        "    - split_sizes: published [6, 3, 4], found [6, 2, 4]\n"
        "    - shop: published 7, found nothing of that name\n"
        "Another version of the files? Get the published ones with: hgmm datasets fetch small"
    )


def test_register_enters_an_instance_and_refuses_a_taken_name(small_graph: MultimodalGraph) -> None:
    class Mine(Dataset):
        info = DatasetInfo("imdb")

        def load(self, root: Path, *, require_official: bool = False) -> MultimodalGraph:
            return small_graph

    assert isinstance(DATASETS.get("imdb"), Dataset)
    with pytest.raises(ConfigError, match=re.escape("dataset 'imdb' exists already")):
        register(Mine)


def test_every_registered_dataset_describes_itself() -> None:
    for name in DATASETS:
        info = DATASETS.get(name).info
        assert info.name == name
        assert info.title
        assert info.licence
        assert info.citation
        assert info.target


def test_a_dataset_without_files_fetches_nothing(tmp_path: Path) -> None:
    assert DATASETS.get("synthetic").fetch(tmp_path) == []


@pytest.mark.parametrize("name", available())
def test_published_counts_say_what_they_count(name: str) -> None:
    described = info(name)
    counts = set(described.published) - {"classes", "class_counts", "split_sizes", "relations"}
    assert set(described.ntypes) <= counts
    if not described.official_files and name not in ("films", "nations"):
        schema = load(name).schema
        assert set(described.ntypes) == set(schema.ntypes)
        assert counts - set(described.ntypes) <= {etype[1] for etype in schema.canonical_etypes}
    assert all(file.ntype in described.ntypes for file in described.official_files if file.ntype and described.ntypes)
