from __future__ import annotations

import dataclasses
import inspect
import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from hgmm.dgl_compat import dgl
from hgmm.errors import ConfigError, SchemaError
from hgmm.graph import GraphSchema, ModalitySpec, MultimodalGraph
from hgmm.losses import cross_modal_loss
from hgmm.models import HGNNIMA
from hgmm.models.variants import ABLATIONS, VARIANTS
from hgmm.registry import MODELS

MASKING = [name for name, row in VARIANTS.items() if row.fill is None]
FILLING = [name for name, row in VARIANTS.items() if row.fill is not None]
SIZES = {"item": 12, "user": 5, "shop": 3}
FROM_SHOP = ("shop", "sells", "item")


def multimodal_graph() -> MultimodalGraph:
    """Items with text and half of them with an image, users with text, shops with an image; user 4 has no edge."""
    rng = torch.Generator().manual_seed(0)
    item = torch.arange(12)
    edges = {
        ("user", "buys", "item"): (item % 4, item),
        ("item", "bought_by", "user"): (item, item % 4),
        FROM_SHOP: (item[:7] % 3, item[:7]),
        ("item", "sold_by", "shop"): (item[:7], item[:7] % 3),
        ("item", "like", "item"): (torch.tensor([0, 0, 5, 7, 7]), torch.tensor([1, 2, 2, 2, 2])),
    }
    g = dgl.heterograph(edges, num_nodes_dict=SIZES)
    g.nodes["item"].data["text"] = torch.randn(12, 5, generator=rng)
    g.nodes["item"].data["image"] = torch.randn(12, 3, generator=rng)
    g.nodes["item"].data["image_present"] = item % 2 == 0
    g.nodes["user"].data["text"] = torch.randn(5, 4, generator=rng)
    g.nodes["shop"].data["image"] = torch.randn(3, 3, generator=rng)
    g.nodes["item"].data["label"] = item % 3
    text, image = ModalitySpec("text", 5), ModalitySpec("image", 3)
    schema = GraphSchema(
        tuple(g.ntypes),
        tuple(g.canonical_etypes),
        {"item": {"text": text, "image": image}, "user": {"text": replace(text, width=4)}, "shop": {"image": image}},
        target="item",
        classes=("a", "b", "c"),
    )
    return MultimodalGraph(g, schema)


def model(schema: GraphSchema, **options: Any) -> HGNNIMA:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return HGNNIMA(schema, **{"hidden_size": 8, "num_heads": 2, "num_layers": 2, **options}).double()


def blocks_of(g: Any, seeds: Tensor, num_layers: int = 2) -> list[Any]:
    sampler = dgl.dataloading.MultiLayerFullNeighborSampler(num_layers)
    return list(sampler.sample_blocks(g, {"item": seeds})[2])


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_output(variant: str) -> None:
    graph = multimodal_graph()
    out = model(graph.schema, variant=variant)(graph.g)
    assert out.logits.shape == (12, 3)
    assert out.branch_logits.shape == (12, 2, 3)
    assert out.branch_names == ("text", "image")
    assert out.aux["embedding"].shape == (12, 8)
    assert out.aux["missing_attention"].dim() == 0
    assert out.aux["missing_attention"] > 0
    torch.testing.assert_close(out.aux["modality_weights"].sum(1), torch.ones(12, dtype=torch.float64))
    assert (out.available is None) == (variant in FILLING)


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_every_ablation_changes_the_attention(variant: str) -> None:
    graph = multimodal_graph()
    seen: dict[tuple[str, ...], Tensor] = {}
    for ablate in ((), *((name,) for name in ABLATIONS)):
        own = model(graph.schema, variant=variant, ablate=ablate).eval()
        attn = own.attention(graph.g)[0][("item", "like", "item")]
        for other, other_attn in seen.items():
            nothing_to_align = VARIANTS[variant].combine == "b1" and {*ablate, *other} == {"align"}
            same = attn.shape == other_attn.shape and torch.allclose(attn, other_attn, rtol=1e-9, atol=0)
            assert same == nothing_to_align, (ablate, other)
        seen[ablate] = attn


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_blocks_with_all_neighbours_equal_the_graph(variant: str) -> None:
    graph = multimodal_graph()
    own = model(graph.schema, variant=variant).eval()
    seeds = torch.tensor([7, 0, 3])
    full, part = own(graph.g, seeds), own(blocks_of(graph.g, seeds))
    torch.testing.assert_close(full.logits, own(graph.g).logits[seeds])
    for a, b in zip(part[:2], full[:2], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(part.aux["modality_weights"], full.aux["modality_weights"])
    torch.testing.assert_close(part.aux["embedding"], full.aux["embedding"])
    assert part.available is None or part.available.equal(full.available)


def test_blocks_of_all_targets_have_the_graphs_missing_attention() -> None:
    graph = multimodal_graph()
    for variant in ("sharp", "modal2_missing"):
        own = model(graph.schema, variant=variant).eval()
        out = own(blocks_of(graph.g, torch.arange(12)))
        torch.testing.assert_close(out.aux["missing_attention"], own(graph.g).aux["missing_attention"])


@pytest.mark.filterwarnings("ignore:Dataloader CPU affinity opt is not enabled")
def test_trains_from_a_data_loader() -> None:
    graph = multimodal_graph()
    own = model(graph.schema, dropout=0.0, encoder_dropout=0.0, fusion_dropout=0.0)
    sampler = dgl.dataloading.NeighborSampler([2, 2])
    loader = dgl.dataloading.DataLoader(
        graph.g, {"item": torch.arange(12)}, sampler, batch_size=5, shuffle=False, num_workers=0
    )
    optimizer = torch.optim.AdamW(own.parameters(), lr=1e-2)
    losses = []
    for _ in range(15):
        total = 0.0
        for _, output_nodes, blocks in loader:
            out = own(blocks)
            target = graph.labels[output_nodes["item"]]
            loss = cross_modal_loss(out.logits, out.branch_logits, target, available=out.available)
            optimizer.zero_grad()
            (loss + out.aux["missing_attention"]).backward()
            optimizer.step()
            total += loss.item()
        losses.append(total)
    assert losses[-1] < 0.5 * losses[0]


def test_presence_is_the_inputs_or_a_neighbours() -> None:
    graph = multimodal_graph()
    image = (torch.arange(12) % 2 == 0) | (torch.arange(12) < 7)
    # Shops tell the first items of images, these tell their buyers in the second layer, and these all in the third.
    for num_layers in (1, 2):
        available = model(graph.schema, num_layers=num_layers)(graph.g).available
        assert available[:, 0].all()
        assert available[:, 1].equal(image)
    assert model(graph.schema, num_layers=3)(graph.g).available.all()


def test_masked_features_do_not_matter() -> None:
    graph = multimodal_graph()
    own = model(graph.schema).eval()
    expected = own(graph.g).logits
    graph.g.nodes["item"].data["image"][1::2] = torch.nan
    torch.testing.assert_close(own(graph.g).logits, expected, rtol=0, atol=0)


def test_missing_attention_of_masked_modalities_starts_in_the_second_layer() -> None:
    """A masked modality has no lambda until it has arrived by propagation."""
    graph = multimodal_graph()
    assert model(graph.schema, num_layers=1)(graph.g).aux["missing_attention"] == 0
    own = model(graph.schema).train()
    own(graph.g).aux["missing_attention"].backward()
    modal = own.get_parameter("convs.1.relations.edge:shop:sells:item.modal")
    assert modal.grad is not None
    assert modal.grad.abs().sum() > 0


def test_missing_attention_is_lambdas_mean_over_edges_without_the_modality() -> None:
    """With the ablation adapt lambda is 1 / number present, known without the model."""
    graph = multimodal_graph()
    filling = model(graph.schema, variant="poster", ablate=("adapt",))(graph.g)
    assert filling.aux["missing_attention"].item() == pytest.approx(0.5)
    masking = model(graph.schema, ablate=("adapt",), num_layers=1)(graph.g)
    assert masking.aux["missing_attention"].item() == 0
    # By layer 2, item 5 and users 0 and 2 have heard of an image and shops of a text; item 7, users 1 and 3 have not.
    liked, bought, sold = 0.5 / 3, (3 + 3) * 0.5 / 12, 0.5
    expected = (0 + (liked + bought + sold) / 3) / 2
    out = model(graph.schema, ablate=("adapt",))(graph.g)
    assert out.aux["missing_attention"].item() == pytest.approx(expected)


def test_nothing_missing() -> None:
    etype = ("item", "like", "item")
    g = dgl.heterograph({etype: ([0, 1], [1, 2])})
    g.nodes["item"].data["text"] = torch.ones(3, 2)
    specs = {"item": {"text": ModalitySpec("text", 2)}}
    schema = GraphSchema(("item",), (etype,), specs, target="item", classes=("a", "b"))
    for form in ("code", "poster"):
        assert model(schema, missing_attention_form=form)(g).aux["missing_attention"] == 0


def test_poster_form_counts_receivers() -> None:
    graph = multimodal_graph()
    own = model(graph.schema, variant="poster", ablate=("adapt",), missing_attention_form="poster")
    # Receivers without an image: 6 items by their in-edges, 4 users; without text: shops. lambda is a half everywhere.
    g = graph.g
    degree = sum(g.in_degrees(etype=e) for e in g.canonical_etypes if e[2] == "item")
    edges = degree[1::2].sum() + g.num_edges("bought_by") + g.num_edges("sold_by")
    expected = 2 * 0.5 * edges.item() / (2 * 2)
    assert own(g).aux["missing_attention"].item() == pytest.approx(expected)


def test_modality_dropout_hides_modalities_in_training_only() -> None:
    graph = multimodal_graph()
    quiet = {"dropout": 0.0, "encoder_dropout": 0.0, "fusion_dropout": 0.0, "input_norm": "none"}
    own, plain = model(graph.schema, modality_dropout=0.9, **quiet), model(graph.schema, **quiet)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        hidden = own._drop_modalities({"item": torch.ones(100, 2, dtype=torch.bool)})["item"]
        assert hidden.any(1).all()
        assert 0 < hidden.all(1).sum() < 10
        assert not torch.allclose(own(graph.g).logits, plain(graph.g).logits)
    torch.testing.assert_close(own.eval()(graph.g).logits, plain.eval()(graph.g).logits)


def test_a_graph_may_lack_types_or_have_empty_ones() -> None:
    graph = multimodal_graph()
    own = model(graph.schema).eval()
    etype = ("item", "like", "item")
    part = dgl.heterograph({etype: graph.g.edges(etype=etype)}, num_nodes_dict={"item": 12})
    empty = dgl.heterograph(
        {e: graph.g.edges(etype=etype) if e == etype else ([], []) for e in graph.schema.canonical_etypes},
        num_nodes_dict={"item": 12, "user": 0, "shop": 0},
    )
    for g in (part, empty):
        for name, value in graph.g.nodes["item"].data.items():
            g.nodes["item"].data[name] = value
    empty.nodes["user"].data["text"] = torch.zeros(0, 4)
    empty.nodes["shop"].data["image"] = torch.zeros(0, 3)
    torch.testing.assert_close(own(part).logits, own(empty).logits, rtol=0, atol=0)
    assert own.train()(empty).logits.isfinite().all()


def test_gradients_reach_all_that_leads_to_the_target() -> None:
    graph = multimodal_graph()
    own = model(graph.schema)
    out = own(graph.g)
    (out.logits.sin().sum() + out.branch_logits.sin().sum()).backward()
    idle = {name for name, parameter in own.named_parameters() if parameter.grad is None}
    assert all(p.grad.isfinite().all() for p in own.parameters() if p.grad is not None)
    # In the last layer users and shops are sources only.
    away = [e for e in graph.schema.canonical_etypes if e[2] != "item"]
    expected = {
        f"convs.1.relations.edge:{':'.join(e)}.{p}" for e in away for p in ("node", "message", "modal", "prior")
    }
    for ntype in ("user", "shop"):
        parts = [f"{linear}.{p}" for linear in ("q", "a", "norm") for p in ("weight", "bias")]
        expected |= {f"convs.1.nodes.node:{ntype}.{part}" for part in [*parts, "skip"]}
    assert idle == expected


def test_same_seed_same_result() -> None:
    graph = multimodal_graph()

    def run() -> tuple[Tensor, Tensor]:
        with torch.random.fork_rng():
            torch.manual_seed(3)
            own = HGNNIMA(graph.schema, hidden_size=8, num_heads=2, modality_dropout=0.3)
            out = own(graph.g)
            out.logits.sum().backward()
            return out.logits.detach(), own.classifier.weight.grad

    torch.testing.assert_close(run(), run(), rtol=0, atol=0)


def test_the_graph_is_not_written_to() -> None:
    graph = multimodal_graph()
    keys = {t: sorted(graph.g.nodes[t].data) for t in graph.g.ntypes}
    image = graph.g.nodes["item"].data["image"].clone()
    model(graph.schema, variant="modal2_missing", fill="copy:text")(graph.g)
    assert {t: sorted(graph.g.nodes[t].data) for t in graph.g.ntypes} == keys
    assert graph.g.nodes["item"].data["image"].equal(image)


def test_attention_is_by_layer_and_relation() -> None:
    graph = multimodal_graph()
    first, second = model(graph.schema).eval().attention(graph.g)
    assert sorted(second) == sorted(e for e in graph.schema.canonical_etypes if e[2] == "item")
    assert set(second) < set(first)
    assert first[FROM_SHOP].shape == (7, 2)
    assert not first[FROM_SHOP].requires_grad
    assert model(graph.schema, ablate=("cross",)).attention(graph.g)[0][FROM_SHOP].shape == (7, 2, 2)


def test_is_rebuilt_from_its_arguments() -> None:
    graph = multimodal_graph()
    own = model(graph.schema, variant="modal2_align", ablate=("nei",), fill="copy:text", temperature=3.0).eval()
    args = json.loads(json.dumps(own.constructor_args()))
    signature = inspect.signature(HGNNIMA)
    assert set(args) == set(signature.parameters) - {"schema"}
    assert MODELS.get("hgnn-ima") is HGNNIMA
    again = MODELS.get("hgnn-ima")(GraphSchema.from_dict(own.schema.to_dict()), **args).double().eval()
    again.load_state_dict(own.state_dict())
    torch.testing.assert_close(again(graph.g).logits, own(graph.g).logits, rtol=0, atol=0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_stored_keys_and_values_stay_near_full_precision(variant: str) -> None:
    graph = multimodal_graph()
    full = model(graph.schema, variant=variant).float().eval()
    stored = model(graph.schema, **{**full.constructor_args(), "kv_dtype": "bfloat16"}).float().eval()
    stored.load_state_dict(full.state_dict())
    assert stored.constructor_args()["kv_dtype"] == "bfloat16"
    actual, expected = stored(graph.g), full(graph.g)
    assert actual.logits.dtype == torch.float32
    assert not torch.equal(actual.logits, expected.logits)
    torch.testing.assert_close(actual.logits, expected.logits, rtol=0.05, atol=0.05)


def test_its_arguments_hold_the_defaults_of_the_variant(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = multimodal_graph()
    own = model(graph.schema, dropout=0.125)
    args = own.constructor_args()
    assert (args["dropout"], args["input_norm"]) == (0.125, "batch")
    changed = dataclasses.replace(VARIANTS["sharp"], input_norms=("none",), encoder_dropout=0.75, temperature=9.0)
    monkeypatch.setitem(VARIANTS, "sharp", changed)
    again = model(graph.schema, **args)
    again.load_state_dict(own.state_dict())
    assert again.constructor_args() == args


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "sharpe"}, "unknown variant 'sharpe'.*Did you mean 'sharp'"),
        ({"ablate": ("nei", "neighbours")}, "unknown ablate 'neighbours'; known: adapt, align, cross, inf, nei"),
        ({"ablate": "align"}, "ablate: expected a list of names, got 'align'"),
        ({"ablate": ("cross", "inf")}, "exclude each other, got .*'cross', 'inf'"),
        ({"missing_attention_form": "paper"}, "unknown missing_attention_form 'paper'"),
        ({"kv_dtype": "float8"}, "kv_dtype: unknown kv_dtype 'float8'; known: bfloat16"),
        ({"num_layers": 0}, "num_layers: must be at least 1, got 0"),
        ({"dropout": 1.0}, "dropout: must be at least 0 and below 1, got 1.0"),
        ({"modality_dropout": -0.1}, "modality_dropout: must be at least 0 and below 1, got -0.1"),
        ({"fill": "zeros"}, "variant 'sharp' masks absent modalities, got 'zeros'"),
        ({"variant": "poster", "modality_dropout": 0.5}, "variant 'poster' does not mask modalities, got 0.5"),
        ({"hidden_size": 9}, "multiple of num_heads=2, got 9"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        model(multimodal_graph().schema, **options)


def test_schema_needs_target_and_classes() -> None:
    schema = multimodal_graph().schema
    with pytest.raises(SchemaError, match="got target='item' and 0 classes"):
        model(replace(schema, classes=()))
    with pytest.raises(SchemaError, match="got target=None and 0 classes"):
        model(replace(schema, classes=(), target=None))


def test_graphs_that_do_not_fit() -> None:
    graph = multimodal_graph()
    own = model(graph.schema)
    with pytest.raises(ConfigError, match="the model has 2 layers, got 3 blocks"):
        own(blocks_of(graph.g, torch.arange(2), 3))
    with pytest.raises(SchemaError, match="unknown node type 'film'; known: item, shop, user"):
        own(dgl.heterograph({("film", "like", "film"): ([0], [1])}))
    bare = dgl.heterograph({("item", "like", "item"): ([0], [1])})
    with pytest.raises(SchemaError, match=r"node type 'item' has no feature 'text', got \[\]"):
        own(bare)
    users = dgl.heterograph({("user", "knows", "user"): ([], [])}, num_nodes_dict={"user": 1})
    users.nodes["user"].data["text"] = torch.zeros(1, 4)
    with pytest.raises(SchemaError, match=r"unknown relation .*'knows'"):
        own(users)
    schema = replace(graph.schema, canonical_etypes=(*graph.schema.canonical_etypes, ("user", "knows", "user")))
    with pytest.raises(SchemaError, match=r"target node type 'item' is missing, got \[\]"):
        model(schema)(users)
