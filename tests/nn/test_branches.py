from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from hgmm.dgl_compat import dgl
from hgmm.errors import ConfigError, SchemaError, ShapeError
from hgmm.graph import GraphSchema, ModalitySpec
from hgmm.nn import BranchLibrary, BranchOutput, branch_names
from hgmm.nn._graph_stack import BACKBONES
from tests.nn.graphs import EDGES, ETYPES, NTYPES, SIZES, graph, presence

TEXT, IMAGE, AGE = ModalitySpec("text", 5), ModalitySpec("image", 3), ModalitySpec("numeric", 1)
SCHEMA = GraphSchema(
    tuple(NTYPES),
    tuple(ETYPES),
    {"item": {"text": TEXT, "image": IMAGE}, "user": {"text": replace(TEXT, width=4), "age": AGE}},
    target="item",
    classes=("a", "b", "c"),
    modality_names=("text", "image", "age"),
)
ALL = ("raw:text", "raw:image", "structure", "propagated:text", "propagated:image", "propagated:age")
IDS = {ntype: [f"{ntype}{n}" for n in range(SIZES[ntype])] for ntype in NTYPES}
OWN = {ntype: tuple(SCHEMA.modalities[ntype]) for ntype in NTYPES}


def library(**options: Any) -> BranchLibrary:
    options = {"hidden_size": 4, "num_layers": 2, "num_heads": 2, **options}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return BranchLibrary(SCHEMA, **options).double().eval()


def inputs() -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor]]:
    """Item 0 lacks all; item 3 has no text; users have no image, and user 2 no age."""
    rng = torch.Generator().manual_seed(1)
    features = {
        t: {m: torch.randn(SIZES[t], w, generator=rng, dtype=torch.float64) for m, w in SCHEMA.widths(t).items()}
        for t in NTYPES
    }
    present = presence(3)
    present["item"][:, 2] = False
    present["user"] = torch.tensor([[True, False, n != 2] for n in range(4)])
    return features, present


def degrees(g: Any) -> dict[str, Tensor]:
    return {t: torch.stack([g.out_degrees(etype=e) for e in ETYPES if e[0] == t], 1) for t in NTYPES}


def run(own: BranchLibrary, g: Any = None) -> BranchOutput:
    g = graph() if g is None else g
    features, present = inputs()
    structure = None
    if "structure" in own.names:
        structure = own.structure_inputs(g, IDS)
        structure = structure if own.structure == "ids" else {t: x.double() for t, x in structure.items()}
    return own([g, g], features, present, structure=structure)


def run_blocks(own: BranchLibrary, seeds: Tensor, num_layers: int = 2) -> BranchOutput:
    g, (features, present) = graph(), inputs()
    blocks = dgl.dataloading.MultiLayerFullNeighborSampler(num_layers).sample_blocks(g, {"item": seeds})[2]
    rows = {t: blocks[0].srcnodes[t].data["_ID"] for t in NTYPES}
    structure = {t: x[rows[t]] for t, x in own.structure_inputs(g, IDS).items()}
    return own(
        blocks,
        {t: {m: x[rows[t]] for m, x in named.items()} for t, named in features.items()},
        {t: x[rows[t]] for t, x in present.items()},
        structure=structure if own.structure == "ids" else {t: x.double() for t, x in structure.items()},
        out_degrees={t: x[rows[t]] for t, x in degrees(g).items()},
    )


def available_by_loops() -> list[list[bool]]:
    _, present = inputs()
    rows = []
    for i in range(SIZES["item"]):
        around = [
            present[e[0]][j].tolist() for e in ETYPES if e[2] == "item"
            for j, d in zip(*EDGES[e], strict=True) if d == i
        ]  # fmt: skip
        own = present["item"][i].tolist()
        rows.append([own[0], own[1], True, *(own[m] or any(row[m] for row in around) for m in range(3))])
    return rows


@pytest.mark.parametrize("backbone", BACKBONES)
def test_output_and_availability(backbone: str) -> None:
    out = run(library(backbone=backbone))
    assert out.logits.shape == (6, 6, 3)
    assert out.states.shape == (6, 6, 4)
    assert out.available.tolist() == available_by_loops()
    missing = ~out.available
    assert missing.sum() > 4
    assert not out.logits[missing].any()
    assert not out.states[missing].any()
    assert out.logits.isfinite().all()
    # Item 0 lacks every modality of its own, item 5 has no edge.
    assert not out.available[0, :2].any()
    assert out.available[5].tolist() == [True, True, True, True, True, False]


@pytest.mark.parametrize("structure", ["features", "ids"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_full_blocks_equal_the_graph(backbone: str, structure: str) -> None:
    own, seeds = library(backbone=backbone, structure=structure), torch.tensor([4, 0, 1])
    whole, part = run(own), run_blocks(own, seeds)
    assert part.available.equal(whole.available[seeds])
    torch.testing.assert_close(part.logits, whole.logits[seeds], rtol=0, atol=1e-6)
    torch.testing.assert_close(part.states, whole.states[seeds], rtol=0, atol=1e-6)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_backends_agree(backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {}
    for backend in ("reference", "cpu"):
        monkeypatch.setenv("HGMM_BACKEND", backend)
        own = library(backbone=backbone)
        out = run(own)
        out.logits.square().sum().backward()
        found[backend] = [*out, *(x.grad for x in own.parameters() if x.grad is not None)]
    # Structural features are computed in float32.
    torch.testing.assert_close(found["cpu"], found["reference"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_branch_sees_its_own_evidence_alone(backbone: str) -> None:
    own, (features, present) = library(backbone=backbone), inputs()
    g = graph()
    structure = {t: x.double() for t, x in own.structure_inputs(g, IDS).items()}
    before = own([g, g], features, present, structure=structure).logits
    for index, name in enumerate(ALL):
        changed, other = {t: dict(named) for t, named in features.items()}, structure
        modality = name.partition(":")[2]
        if modality:
            for named in changed.values():
                named.update({modality: named[modality] + 1} if modality in named else {})
        else:
            other = {t: x + 1 for t, x in structure.items()}
        after = own([g, g], changed, present, structure=other).logits
        moved = {ALL[p] for p in range(6) if not torch.equal(after[:, p], before[:, p])}
        same_modality = {other for other in ALL if modality and other.endswith(f":{modality}")}
        assert moved == (same_modality or {name}), index


def test_parameters_of_branches_are_separate() -> None:
    for backbone in BACKBONES:
        own = library(backbone=backbone)
        run(own).logits[:, ALL.index("propagated:text")].sum().backward()
        for name, x in own.propagated_layers.named_parameters():
            if x.grad is not None and x.dim() > 2 and x.shape[0] == 3:
                assert not x.grad[1:].any(), name
        touched = [x.grad is not None and bool(x.grad.any()) for x in own.raw_encoder.parameters()]
        assert not any(touched)


def test_what_absent_rows_hold_does_not_matter() -> None:
    own, (features, present) = library(branches=("raw", "propagated")), inputs()
    order = SCHEMA.modality_names
    broken = {
        t: {m: x.masked_fill(~present[t][:, order.index(m), None], torch.nan) for m, x in named.items()}
        for t, named in features.items()
    }
    g = graph()
    torch.testing.assert_close(own([g, g], broken, present).logits, own([g, g], features, present).logits)


def test_gradients() -> None:
    own, (features, present), g = library(branches=("raw", "propagated"), backbone="gat"), inputs(), graph()

    def logits(text: Tensor, image: Tensor) -> Tensor:
        return own([g, g], {**features, "item": {"text": text, "image": image}}, present).logits

    given = tuple(features["item"][m].clone().requires_grad_() for m in ("text", "image"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HGMM_BACKEND", "reference")
        assert torch.autograd.gradcheck(logits, given, fast_mode=True)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_without_edges_and_nodes(backbone: str) -> None:
    own = library(backbone=backbone)
    features, present = inputs()
    bare = dgl.heterograph({e: ([], []) for e in ETYPES}, num_nodes_dict=SIZES)
    structure = {t: x.double() for t, x in own.structure_inputs(bare, IDS).items()}
    out = own([bare, bare], features, present, structure=structure)
    assert out.logits.isfinite().all()
    # Nobody sends anything: a propagated branch is there where the node has the modality itself.
    assert out.available[:, 3:].equal(present["item"])
    empty = dgl.heterograph({e: ([], []) for e in ETYPES}, num_nodes_dict=dict.fromkeys(NTYPES, 0))
    nothing = {t: {m: x[:0] for m, x in named.items()} for t, named in features.items()}
    structure = {t: x[:0] for t, x in structure.items()}
    none = own([empty, empty], nothing, {t: x[:0] for t, x in present.items()}, structure=structure)
    assert none.logits.shape == (0, 6, 3)


def test_a_modality_that_no_node_has_now_is_unavailable() -> None:
    own, (features, present), g = library(branches=("raw", "propagated")), inputs(), graph()
    own.train()
    present = {t: x & torch.tensor([True, False, True]) for t, x in present.items()}
    out = own([g, g], features, present)
    assert not out.available[:, [1, 3]].any()
    assert out.logits.isfinite().all()


def test_mixed_precision_stays_near_full_precision() -> None:
    own = library(branches=("raw", "propagated"), backbone="gat").float()
    features, present = inputs()
    features = {t: {m: x.float() for m, x in named.items()} for t, named in features.items()}
    g = graph()
    full = own([g, g], features, present).logits
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = own([g, g], features, present).logits
    torch.testing.assert_close(mixed, full, rtol=0.1, atol=0.1, check_dtype=False)


@pytest.mark.parametrize(
    ("chosen", "names"),
    [
        (("raw", "structure", "propagated"), ALL),
        (("propagated", "raw"), (*ALL[:2], *ALL[3:])),
        (("structure",), ("structure",)),
        (("propagated:age", "raw:text"), ("raw:text", "propagated:age")),
        (("raw:text", "raw"), ALL[:2]),
    ],
)
def test_names_stand_in_a_fixed_order(chosen: tuple[str, ...], names: tuple[str, ...]) -> None:
    assert branch_names(SCHEMA, chosen) == names
    assert library(branches=chosen).heads.weight.shape[0] == len(names)
    assert run(library(branches=chosen)).logits.shape == (6, len(names), 3)


def test_families_leave_out_the_modality_that_describes_structure() -> None:
    modalities = {"item": {"text": TEXT}, "user": {"structure": ModalitySpec("structure", 7)}}
    schema = GraphSchema(tuple(NTYPES), tuple(ETYPES), modalities, target="item", classes=("a", "b"))
    assert branch_names(schema) == ("raw:text", "structure", "propagated:text")
    assert branch_names(schema, ("propagated:structure",)) == ("propagated:structure",)


@pytest.mark.parametrize(
    ("branches", "message"),
    [
        (("raw:age",), r"branches: unknown branch 'raw:age'; known: .*raw:text.* left out if no node can have it"),
        (("fused",), r"BranchLibrary, branches: unknown branch 'fused'; known: propagated, .*structure"),
        ("raw", r"BranchLibrary, branches: expected a list of names, got 'raw'"),
        ((), r"BranchLibrary, branches: no branch is left of \[\]; choose among raw:text, .*propagated:age"),
    ],
)
def test_branches_that_cannot_be(branches: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        branch_names(SCHEMA, branches)


def test_a_schema_needs_target_and_classes() -> None:
    with pytest.raises(SchemaError, match=r"needs a target node type with classes, got target=None and 0 classes"):
        branch_names(replace(SCHEMA, target=None, classes=()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_size": 0}, r"BranchLibrary, hidden_size: must be at least 1, got 0"),
        ({"num_layers": 0}, r"BranchLibrary, num_layers: must be at least 1, got 0"),
        ({"num_heads": 0}, r"BranchLibrary, num_heads: must be at least 1, got 0"),
        ({"structure_probes": -1}, r"BranchLibrary, structure_probes: must be at least 0, got -1"),
        ({"id_table_size": 0}, r"BranchLibrary, id_table_size: must be at least 1, got 0"),
        ({"dropout": 1.0}, r"BranchLibrary, dropout: must be at least 0 and below 1, got 1.0"),
        ({"backbone": "gin"}, r"BranchLibrary, backbone: unknown backbone 'gin'; known: gat, gcn, hgnn-ima, sage"),
        ({"structure": "eigen"}, r"BranchLibrary, structure: unknown structure 'eigen'; known: features, ids"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        library(**options)


def test_the_structure_branch_needs_its_inputs() -> None:
    features, present = inputs()
    with pytest.raises(ShapeError, match=r"BranchLibrary, structure: the branch 'structure' is on .* got None"):
        library()([graph(), graph()], features, present)
