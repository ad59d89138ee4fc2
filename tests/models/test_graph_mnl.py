from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hgmm.dgl_compat import dgl
from hgmm.errors import ConfigError, SchemaError
from hgmm.graph import GraphSchema, ModalitySpec, MultimodalGraph
from hgmm.losses import cross_modal_loss
from hgmm.models import GraphMNL
from hgmm.nn import fuse_branches
from hgmm.nn._graph_stack import BACKBONES
from hgmm.registry import MODELS
from hgmm.training import load_run, train_run
from hgmm.training.config import RunConfig

NAMES = ("raw:text", "raw:image", "structure", "propagated:text", "propagated:image")


def model(schema: GraphSchema, **options: Any) -> GraphMNL:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return GraphMNL(schema, **{"hidden_size": 4, "num_heads": 2, **options}).eval()


def blocks_of(graph: MultimodalGraph, seeds: Tensor) -> list[Any]:
    sampler = dgl.dataloading.MultiLayerFullNeighborSampler(2)
    return list(sampler.sample_blocks(graph.g, {"item": seeds})[2])


@pytest.mark.parametrize("fusion", ["mean", "reliability"])
def test_output(small_graph: MultimodalGraph, fusion: str) -> None:
    own = model(small_graph.schema, fusion=fusion, branch_weights={"structure": 0.5})
    out = own(small_graph)
    assert out.branch_names == own.branch_names == NAMES
    assert out.branch_logits.shape == (12, 5, 2)
    assert out.available.shape == (12, 5)
    weights = torch.tensor([1.0, 1.0, 0.5, 1.0, 1.0])
    fused, shares = fuse_branches(out.branch_logits, out.available, fusion=fusion, weights=weights)
    torch.testing.assert_close(out.logits, fused)
    torch.testing.assert_close(out.aux["branch_weights"], shares)
    # Shares times states, times the heads, are the logits up to the biases, which start at zero.
    heads = own.branch_library.heads.weight.flatten(0, 1)
    torch.testing.assert_close(out.aux["embedding"] @ heads, out.logits)


@pytest.mark.parametrize("structure", ["features", "ids"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_full_blocks_and_chosen_nodes_equal_the_graph(
    small_graph: MultimodalGraph, backbone: str, structure: str
) -> None:
    own, seeds = model(small_graph.schema, backbone=backbone, structure=structure), torch.tensor([7, 0, 3])
    graph = own.prepare(small_graph)
    whole = own(graph)
    # Sums of float32 in another order: how far they are apart depends on the processor.
    for part in (own(graph.g, seeds), own(blocks_of(graph, seeds))):
        torch.testing.assert_close(part.logits, whole.logits[seeds], rtol=0, atol=1e-5)
        torch.testing.assert_close(part.branch_logits, whole.branch_logits[seeds], rtol=0, atol=1e-5)
        torch.testing.assert_close(part.aux["embedding"], whole.aux["embedding"][seeds], rtol=0, atol=1e-5)
        assert part.available.equal(whole.available[seeds])


@pytest.mark.parametrize("etype", [("item", "at", "shop"), ("shop", "sells", "item")], ids=["sends", "receives"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_target_that_only_sends_or_only_receives(etype: tuple[str, str, str], backbone: str) -> None:
    g = dgl.heterograph({etype: ([0, 1, 1], [0, 0, 1])}, num_nodes_dict={"item": 3, "shop": 2})
    g.nodes["item"].data["text"] = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    text = {"item": {"text": ModalitySpec("text", 4)}}
    schema = GraphSchema(("item", "shop"), (etype,), text, target="item", classes=("a", "b", "c"))
    graph = MultimodalGraph(g, schema)
    own, seeds = model(schema, backbone=backbone), torch.tensor([2, 1])
    whole = own(own.prepare(graph))
    part = own(blocks_of(own.prepare(graph), seeds))
    torch.testing.assert_close(part.branch_logits, whole.branch_logits[seeds], rtol=0, atol=1e-6)
    assert whole.available.all()


def test_preparing_leaves_the_graph_as_it_is(small_graph: MultimodalGraph) -> None:
    own, before = model(small_graph.schema), set(small_graph.g.nodes["item"].data)
    graph = own.prepare(small_graph)
    assert set(small_graph.g.nodes["item"].data) == before
    assert set(graph.g.nodes["item"].data) == {*before, "_structure_64", "_out_degrees"}
    assert graph.node_ids == small_graph.node_ids
    # A prepared graph is not prepared again, and the model prepares one that is not.
    graph.g.nodes["item"].data["_structure_64"] += 1
    assert not torch.equal(own(graph).logits, own(small_graph).logits)


@pytest.mark.parametrize(
    "others", [{"structure_probes": 0}, {"structure": "ids"}, {"structure": "ids", "id_table_size": 5}], ids=str
)
def test_what_another_model_prepared_is_not_read(small_graph: MultimodalGraph, others: dict[str, Any]) -> None:
    own, other = model(small_graph.schema), model(small_graph.schema, **others)
    third = model(small_graph.schema, structure="ids", id_table_size=9)
    assert own(other.prepare(small_graph)).logits.equal(own(small_graph).logits)
    assert third(other.prepare(small_graph)).logits.equal(third(small_graph).logits)


def test_a_graph_that_is_not_prepared(small_graph: MultimodalGraph) -> None:
    own = model(small_graph.schema)
    with pytest.raises(SchemaError, match=r"node type 'item' has no data '_structure_64', got .*'text'"):
        own(small_graph.g)
    own = model(small_graph.schema, branches=("propagated",))
    assert own(small_graph.g).logits.shape == (12, 2)
    with pytest.raises(SchemaError, match=r"GraphMNL, graph: node type 'item' has no data '_out_degrees', got"):
        own(blocks_of(small_graph, torch.tensor([1])))
    assert model(small_graph.schema, branches=("raw",))(blocks_of(small_graph, torch.tensor([1]))).logits.shape == (
        1,
        2,
    )


def test_a_graph_must_fit(small_graph: MultimodalGraph) -> None:
    own = model(small_graph.schema, branches=("raw", "propagated"))
    with pytest.raises(ConfigError, match=r"GraphMNL, graph: the model has 2 layers, got 1 blocks"):
        own(blocks_of(small_graph, torch.tensor([1]))[:1])
    users = dgl.heterograph({("user", "knows", "user"): ([], [])}, num_nodes_dict={"user": 1})
    users.nodes["user"].data["structure"] = torch.zeros(1, small_graph.schema.widths("user")["structure"])
    with pytest.raises(SchemaError, match=r"the target node type 'item' is missing, got \['user'\]"):
        own(users)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fusion": "max"}, r"GraphMNL, fusion: unknown fusion 'max'; known: mean, reliability"),
        ({"branch_weights": [1.0]}, r"GraphMNL, branch_weights: expected a mapping from branch to number, got \[1.0\]"),
        ({"branch_weights": {"raw": 1}}, r"GraphMNL, branch_weights: unknown branch 'raw'; known: .*structure"),
        ({"branch_weights": {"structure": -1}}, r"branch_weights\['structure'\]: must be a finite number .* got -1"),
        ({"branch_weights": {"structure": math.nan}}, r"branch_weights\['structure'\]: must be a finite .* got nan"),
        ({"branch_weights": {"structure": "big"}}, r"branch_weights\['structure'\]: must be a finite .* got 'big'"),
        ({"branch_weights": dict.fromkeys(NAMES, 0)}, r"at least one branch must count, got 0 for all of raw:text, "),
        ({"backbone": "gin"}, r"BranchLibrary, backbone: unknown backbone 'gin'"),
        ({"backbone": "gat", "num_heads": 3}, r"hidden_size: must be .* num_heads=3 for the .* 'gat', got 4"),
        ({"branches": ("raw:audio",)}, r"BranchLibrary, branches: unknown branch 'raw:audio'"),
    ],
)
def test_options_out_of_range(small_graph: MultimodalGraph, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        model(small_graph.schema, **options)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_its_arguments_rebuild_it(small_graph: MultimodalGraph, backbone: str) -> None:
    own = model(
        small_graph.schema, backbone=backbone, branches=("raw:text", "structure"), branch_weights={"structure": 2}
    )
    args = json.loads(json.dumps(own.constructor_args()))
    again = MODELS.get("graph-mnl")(GraphSchema.from_dict(own.schema.to_dict()), **args).eval()
    again.load_state_dict(own.state_dict())
    torch.testing.assert_close(again(small_graph).logits, own(small_graph).logits, rtol=0, atol=0)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_it_learns(small_graph: MultimodalGraph, backbone: str) -> None:
    own = model(small_graph.schema, backbone=backbone, dropout=0.0).train()
    graph, losses = own.prepare(small_graph), []
    optimizer = torch.optim.AdamW(own.parameters(), lr=1e-2)
    for _ in range(40):
        out = own(graph)
        loss = cross_modal_loss(out.logits, out.branch_logits, graph.labels, available=out.available)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("structure", ["features", "ids"])
@pytest.mark.parametrize("sampled", [False, True], ids=["graph", "blocks"])
def test_a_run_can_be_loaded(small_graph: MultimodalGraph, sampled: bool, structure: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "model.name": "graph-mnl",
        "model.hidden_size": 4,
        "model.structure": structure,
        "model.branch_weights": {"structure": 0.5},
        "train.epochs": 2,
        "train.num_threads": 1,
        "train.device": "cpu",
        # The graph has two classes.
        "negative.variant": "nl",
    }
    if sampled:
        settings |= {"train.batch_size": 4, "train.fanouts": [2, 2]}
    record = train_run(RunConfig.resolve(overrides=settings), run_dir=tmp_path / "run", graph=small_graph)
    assert record.status == "done"
    run = load_run(tmp_path / "run")
    predictions = run.predict(small_graph)
    assert predictions.probabilities.shape == (12, 2)
    shares = predictions.table()[[f"weight_{name}" for name in NAMES]]
    assert shares.sum(axis=1).to_numpy() == pytest.approx(1.0, abs=1e-6)
    assert (shares["weight_structure"] < shares["weight_raw:text"]).all()
    ids, values = run.embed(small_graph)
    assert (len(ids), values.shape) == (12, (12, 5 * 4))
    assert run.evaluate(small_graph)["micro_f1"] == pytest.approx(record.test["micro_f1"])
    # The graph may lack a modality that the model knows.
    alone = small_graph.drop_modalities(["image"])
    assert run.predict(alone).probabilities.shape == (12, 2)
