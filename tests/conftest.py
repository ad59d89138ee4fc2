"""Fixtures for all tests: real data where there is some, a small graph, and fresh memory full of NaN."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

# Read when Triton is imported: without a GPU its kernels run in Python, on tensors of the processor.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

from hgmm.dgl_compat import dgl
from hgmm.graph import GraphSchema, ModalitySpec, MultimodalGraph

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Compute with one thread where a test does not ask for more: on small tensors threads only wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _fresh_memory_is_nan() -> Iterator[None]:
    """Fill what ``torch.empty`` returns with NaN, so that an output that nobody wrote cannot pass."""
    algorithms = torch.are_deterministic_algorithms_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(algorithms)
    torch.utils.deterministic.fill_uninitialized_memory = fill


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the files that may not be distributed; the test is skipped where it is absent."""
    named = os.environ.get("HGMM_TEST_DATA")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the real data files are not here: set HGMM_TEST_DATA to their folder (looked in {folder})")
    return folder


@pytest.fixture
def small_graph() -> MultimodalGraph:
    """Twelve items with a text, half of them with an image, in two classes; four users without any feature."""
    generator = torch.Generator().manual_seed(0)
    items, users = 12, 4
    buyers = torch.arange(items) % users
    g = dgl.heterograph(
        {
            ("user", "buys", "item"): (buyers, torch.arange(items)),
            ("item", "bought_by", "user"): (torch.arange(items), buyers),
        },
        num_nodes_dict={"item": items, "user": users},
    )
    label = torch.arange(items) % 2
    data = g.nodes["item"].data
    data["text"] = torch.randn(items, 5, generator=generator) + label[:, None]
    data["image"] = torch.randn(items, 3, generator=generator)
    data["image_present"] = torch.arange(items) % 4 < 2
    data["image"][~data["image_present"]] = 0
    data["label"] = label
    for name, rows in (("train", range(6)), ("val", range(6, 8)), ("test", range(8, 12))):
        mask = torch.zeros(items, dtype=torch.bool)
        mask[list(rows)] = True
        data[f"{name}_mask"] = mask
    schema = GraphSchema(
        ntypes=("item", "user"),
        canonical_etypes=(("user", "buys", "item"), ("item", "bought_by", "user")),
        modalities={"item": {"text": ModalitySpec("text", 5), "image": ModalitySpec("image", 3)}},
        target="item",
        classes=("even", "odd"),
    )
    ids = {"item": [f"i{n}" for n in range(items)], "user": [f"u{n}" for n in range(users)]}
    return MultimodalGraph(g, schema, node_ids=ids, name="small")
