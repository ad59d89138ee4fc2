from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from hgmm.dgl_compat import dgl
from hgmm.errors import ConfigError, SchemaError
from hgmm.graph import GraphSchema, ModalitySpec, MultimodalGraph
from hgmm.models.official import RELEASED_VARIANTS, hgnn_ima_from_state_dict
from tests.oracles_hgnn_ima import VARIANTS, loss_l_att, official_forward, random_official_state_dict

MODALITIES = ("text", "image", "numeric")
IN_SIZE = 5
SHAPE: dict[str, Any] = {"hidden_size": 6, "num_classes": 3, "num_heads": 2, "num_layers": 2}
SIZES = {"film": 7, "actor": 5, "director": 3}
# One hub, parallel edges, films and actors without any edge of a relation, a relation with a single edge.
SKEWED = {
    ("film", "fa", "actor"): ([0, 1, 1, 2, 4, 4, 5, 6, 0, 2, 3, 6], [0, 0, 1, 1, 1, 3, 1, 1, 1, 1, 1, 1]),
    ("actor", "af", "film"): ([0, 0, 1, 1, 1, 3, 2, 4], [0, 1, 1, 2, 4, 4, 4, 4]),
    ("film", "fd", "director"): ([0, 1, 2], [0, 0, 1]),
    ("film", "like", "film"): ([0, 1, 1, 1, 5], [1, 0, 5, 5, 5]),
    ("director", "df", "film"): ([0, 1], [3, 3]),
    ("actor", "seen_in", "film"): ([4], [6]),
}
ONE_TYPE = {
    ("item", "also_viewed", "item"): ([0, 1, 1, 2, 3, 4, 4], [1, 0, 1, 1, 1, 2, 5]),
    ("item", "also_bought", "item"): ([5, 4, 3, 0], [0, 0, 0, 1]),
    ("item", "a.dotted:name", "item"): ([2, 2, 2], [3, 4, 5]),
}
GRAPHS: dict[str, tuple[Any, dict[str, int], str]] = {
    "skewed": (SKEWED, SIZES, "film"),
    "one type": (ONE_TYPE, {"item": 6}, "item"),
}


def make(name: str, variant: str, **options: Any) -> tuple[Any, dict[str, Tensor], dict[str, Tensor]]:
    edges, sizes, target = GRAPHS[name]
    g = dgl.heterograph(
        {etype: tuple(torch.tensor(ids, dtype=torch.int64) for ids in ends) for etype, ends in edges.items()},
        num_nodes_dict=sizes,
    )
    generator = torch.Generator().manual_seed(1)
    num_modalities = VARIANTS[variant].num_modalities
    features = {
        ntype: torch.randn(count, num_modalities, IN_SIZE, generator=generator, dtype=torch.float64)
        for ntype, count in sizes.items()
    }
    for ntype, x in features.items():
        for m in range(num_modalities):
            g.nodes[ntype].data[MODALITIES[m]] = x[:, m].clone()
    g.nodes[target].data["label"] = torch.zeros(sizes[target], dtype=torch.int64)
    state = random_official_state_dict(
        variant, ntypes=list(sizes), etypes=list(edges), in_size=IN_SIZE, **{**SHAPE, **options}
    )
    return g, features, state


def oracle(state: dict[str, Tensor], name: str, features: Any, variant: str, **options: Any) -> dict[str, Any]:
    edges, _, target = GRAPHS[name]
    return official_forward(
        state, edges, features, variant, target=target, **{"num_heads": 2, "num_layers": 2, **options}
    )


@pytest.mark.parametrize(("name", "use_norm"), [("skewed", True), ("one type", False)], ids=["skewed", "no norm"])
@pytest.mark.parametrize("variant", RELEASED_VARIANTS)
def test_outputs_equal_the_released_module(variant: str, name: str, use_norm: bool) -> None:
    g, features, state = make(name, variant, use_norm=use_norm)
    expected = oracle(state, name, features, variant, use_norm=use_norm)
    out = hgnn_ima_from_state_dict(state, g, variant)(g)
    torch.testing.assert_close(out.logits, expected["logits"], rtol=0, atol=1e-10)
    torch.testing.assert_close(out.branch_logits, expected["branch_logits"], rtol=0, atol=1e-10)
    torch.testing.assert_close(out.aux["modality_weights"], expected["modality_attn"], rtol=0, atol=1e-10)
    assert out.available is None


@pytest.mark.parametrize("name", sorted(GRAPHS))
@pytest.mark.parametrize("variant", RELEASED_VARIANTS)
def test_gradients_equal_the_released_modules(variant: str, name: str) -> None:
    """Load weights that carry gradients through the state dict, so that theirs meet the oracle's name by name."""
    g, features, state = make(name, variant)
    trained = [key for key, value in state.items() if value.is_floating_point() and "running" not in key]
    leaves = {key: state[key].clone().requires_grad_() for key in trained}
    expected = oracle({**state, **leaves}, name, features, variant)
    weight = torch.linspace(-1, 1, expected["branch_logits"].numel(), dtype=torch.float64)
    (expected["logits"].sin().sum() + (expected["branch_logits"].flatten() * weight).sum()).backward()

    model = hgnn_ima_from_state_dict(state, g, variant)
    out = model(g)
    (out.logits.sin().sum() + (out.branch_logits.flatten() * weight).sum()).backward()
    for ours, parameter in model.named_parameters():
        expected_grad = official_gradient(ours, leaves, g, parameter)
        if expected_grad is not None:
            grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            torch.testing.assert_close(
                grad, expected_grad, rtol=1e-9, atol=1e-10, msg=lambda text, n=ours: f"{n}: {text}"
            )


def official_gradient(ours: str, leaves: dict[str, Tensor], g: Any, like: Tensor) -> Tensor | None:
    """Find the oracle's gradient of a parameter of ours; the names are written out here a second time on purpose."""
    types, relations = sorted(g.ntypes), sorted(g.canonical_etypes)

    def grad(name: str) -> Tensor:
        value = leaves[name].grad
        return torch.zeros_like(leaves[name]) if value is None else value

    head, *rest = ours.split(".")
    if head == "classifier":
        return grad(f"predict.{rest[0]}")
    if head == "fusion":
        return grad(f"project.1.{rest[-1]}")
    if head == "encoder":
        t = types.index(rest[1].removeprefix("node:"))
        modality, part, kind = rest[2].removeprefix("node:"), rest[3], rest[4]
        prefix = {"": "adapt_ws", "text": "adapt_ws_text", "image": "adapt_ws_img", "numeric": "adapt_ws_s"}[modality]
        name = f"{prefix}.{t}.{kind}"
        if name not in leaves:
            name = f"{prefix}.{t}.{0 if part == 'input_norm' else 1}.{kind}"
        return grad(name)
    layer, kind, key, *part = rest
    if kind == "relations":
        wanted = [f"edge:{':'.join(e.replace('.', '%2E').replace(':', '%3A') for e in etype)}" for etype in relations]
        r = wanted.index(key)
        if part[0] == "modal":
            return torch.stack([grad(f"gcs.{layer}.crossmodal.w_m.modal_{m}")[r] for m in range(len(like))])
        return grad(f"gcs.{layer}.relation_{ {'prior': 'pri', 'node': 'att', 'message': 'msg'}[part[0]] }")[r]
    t = types.index(key.removeprefix("node:"))
    if part[0] == "absent":
        return None
    if part[0] == "skip":
        return grad(f"gcs.{layer}.skip")[t]
    name = f"norms.{t}" if part[0] == "norm" else f"{part[0]}_linears.{t}"
    return grad(f"gcs.{layer}.{name}.{part[1]}")


@pytest.mark.parametrize("form", ["code", "poster"])
def test_missing_attention_equals_the_oracle(form: str) -> None:
    """Directors have no image, and zeros stand for it."""
    g, features, state = make("skewed", "modal2_missing")
    features["director"][:, 1] = 0
    g.nodes["director"].data.pop("image")
    expected = oracle(state, "skewed", features, "modal2_missing")
    model = hgnn_ima_from_state_dict(state, g, "modal2_missing")
    model.missing_attention_form = form
    model._needed = [frozenset(SIZES)] * 2
    loss = loss_l_att(expected["lambdas"], SKEWED, {"director": [1]}, target="film", form=form)
    assert loss > 0
    out = model(g)
    torch.testing.assert_close(out.aux["missing_attention"], loss, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(out.logits, expected["logits"], rtol=0, atol=1e-10)


@pytest.mark.parametrize("variant", ["modal2_align", "modal2_missing"])
def test_copied_text_stands_for_a_missing_image(variant: str) -> None:
    g, features, state = make("skewed", variant)
    for ntype in ("actor", "director"):
        features[ntype][:, 1] = features[ntype][:, 0]
        g.nodes[ntype].data.pop("image")
    model = hgnn_ima_from_state_dict(state, g, variant, fill="copy:text")
    expected = oracle(state, "skewed", features, variant)
    torch.testing.assert_close(model(g).logits, expected["logits"], rtol=0, atol=1e-10)


def test_takes_a_multimodal_graph() -> None:
    g, features, state = make("skewed", "modal2_align")
    schema = GraphSchema(
        tuple(g.ntypes),
        tuple(g.canonical_etypes),
        {t: {"text": ModalitySpec("text", IN_SIZE), "image": ModalitySpec("image", IN_SIZE)} for t in g.ntypes},
        target="film",
        classes=("a", "b", "c"),
    )
    graph = MultimodalGraph(g, schema)
    model = hgnn_ima_from_state_dict(state, graph, "modal2_align")
    expected = oracle(state, "skewed", features, "modal2_align")
    torch.testing.assert_close(model(graph.g).logits, expected["logits"], rtol=0, atol=1e-10)
    assert model.schema.classes == ("a", "b", "c")


def test_float32_weights_make_a_float32_model() -> None:
    g, _, state = make("one type", "modal3_align", dtype=torch.float32)
    assert hgnn_ima_from_state_dict(state, g, "modal3_align")(g).logits.dtype == torch.float32


def test_unknown_variant() -> None:
    g, _, state = make("one type", "modal2_align")
    with pytest.raises(ConfigError, match="unknown variant 'sharp'; known: modal2_align"):
        hgnn_ima_from_state_dict(state, g, "sharp")


def test_no_released_state_dict() -> None:
    g, _, _ = make("one type", "modal2_align")
    with pytest.raises(ConfigError, match=r"'predict\.weight' is missing"):
        hgnn_ima_from_state_dict({}, g, "modal2_align")


def test_weights_of_another_variant() -> None:
    g, _, state = make("one type", "modal2_align")
    with pytest.raises(ConfigError, match=r"'gcs\.1\.skip' is missing"):
        hgnn_ima_from_state_dict({k: v for k, v in state.items() if k != "gcs.1.skip"}, g, "modal2_align")


def test_weights_of_a_larger_graph() -> None:
    _, _, state = make("skewed", "modal2_align")
    small, _, _ = make("one type", "modal2_align")
    with pytest.raises(ConfigError, match=r"'gcs\.0\.k_linears\.1\.weight' fits nothing in a graph with 1 node types"):
        hgnn_ima_from_state_dict(state, small, "modal2_align")


def test_weights_of_a_smaller_graph() -> None:
    _, _, state = make("one type", "modal2_align")
    large, _, _ = make("skewed", "modal2_align")
    with pytest.raises(ConfigError, match=r"'adapt_ws_text\.1\.1\.weight' is missing"):
        hgnn_ima_from_state_dict(state, large, "modal2_align")


def test_weights_of_another_width() -> None:
    g, _, _ = make("one type", "modal2_align")
    state = random_official_state_dict(
        "modal2_align", ntypes=["item"], etypes=list(ONE_TYPE), in_size=IN_SIZE + 1, **SHAPE
    )
    with pytest.raises(ConfigError, match=r"gives the shape \(6, 6\), the graph asks for \(6, 5\)"):
        hgnn_ima_from_state_dict(state, g, "modal2_align")


def test_target_must_be_told() -> None:
    g, _, state = make("skewed", "modal2_align")
    g.nodes["actor"].data["label"] = torch.zeros(5, dtype=torch.int64)
    with pytest.raises(SchemaError, match=r"got \['actor', 'film'\]"):
        hgnn_ima_from_state_dict(state, g, "modal2_align")
    assert hgnn_ima_from_state_dict(state, g, "modal2_align", target="actor")(g).logits.shape == (5, 3)


def test_number_of_classes_must_agree() -> None:
    g, _, state = make("one type", "modal2_align")
    specs = {"text": ModalitySpec("text", IN_SIZE), "image": ModalitySpec("image", IN_SIZE)}
    schema = GraphSchema(("item",), tuple(g.canonical_etypes), {"item": specs}, target="item", classes=("a", "b"))
    with pytest.raises(SchemaError, match="num_classes must be 3 as in state_dict, got 2"):
        hgnn_ima_from_state_dict(state, MultimodalGraph(g, schema), "modal2_align")
