from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from hgmm.dgl_compat import dgl
from hgmm.errors import BackendError, ConfigError, SchemaError, ShapeError
from hgmm.graph import GraphSchema, ModalitySpec, MultimodalGraph
from hgmm.kg import INTERACTIONS, RankingEvaluator
from hgmm.losses import ranking_loss, vector_regularizer
from hgmm.models import MMKGE, MMComplEx, MMDistMult, MMRotatE, MMTransE
from hgmm.registry import MODELS
from hgmm.training import RunConfig, model_options
from tests import oracles_kg
from tests.tolerances import close

E, R, DIM = 7, 3, 4
ETYPE = ("entity", "triple", "entity")
SCHEMA = GraphSchema(
    ("entity",),
    (ETYPE,),
    {"entity": {"image": ModalitySpec("image", 5), "text": ModalitySpec("text", 2)}},
    relations=("likes", "knows", "eats"),
)
TRIPLES = torch.tensor([[0, 0, 1], [2, 1, 2], [3, 2, 6], [5, 0, 4]])
ENTITY = torch.tensor([[3, 3], [0, 6], [5, 1], [4, 2]])
SIDE = torch.tensor([[0, 1], [1, 1], [0, 0], [1, 0]], dtype=torch.int8)
NAMES = ("structure", "image", "text")


def features() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    values = {
        name: torch.randn(E, width, generator=generator, dtype=torch.float64)
        for name, width in SCHEMA.widths("entity").items()
    }
    return values, {"text": torch.tensor([True, False, True, False, True, True, False])}


def make(*, masked: bool = True, **options: Any) -> MMKGE:
    torch.manual_seed(1)
    model = MMKGE(SCHEMA, E, **{"dim": DIM, **options}).double()
    values, present = features()
    used = model.modality_names[1:]
    mask = {name: x for name, x in present.items() if name in used and masked}
    return model.set_features({name: values[name] for name in used}, mask)


def ends(model: MMKGE) -> list[list[list[float] | None]]:
    """Return each entity's vectors, None where a modality is absent, by the definition."""
    values, _ = features()
    length = oracles_kg.unit if model.normalize else list
    rows = []
    for e in range(E):
        row = [length(model.structure[e].tolist())]
        for name, layer in zip(model.modality_names[1:], model.projections, strict=True):
            weight, bias = (x.tolist() for x in layer.parameters())
            row.append(length(oracles_kg.affine(weight, bias, values[name][e].tolist())))
        rows.append([x if has else None for x, has in zip(row, model.present[e], strict=True)])
    return rows


def oracle(model: MMKGE, triple: list[int]) -> float:
    vectors = ends(model)
    h, r, t = triple
    relation = model.relation[r].tolist()
    if model.normalize and model.interaction.normalized:
        relation = oracles_kg.unit(relation)
    name = model.constructor_args()["interaction"]
    return oracles_kg.multimodal(
        oracles_kg.SCORES[name], vectors[h], relation, vectors[t], model.pairs.pairs, model.pairs.weights
    )


def corrupted(b: int, k: int) -> list[int]:
    h, r, t = TRIPLES[b].tolist()
    other = int(ENTITY[b, k])
    return [h, r, other] if SIDE[b, k] else [other, r, t]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", INTERACTIONS)
def test_scores_equal_the_definition(name: str, masked: bool) -> None:
    pairs = [("structure", "structure"), ("text", "image"), ("image", "structure"), ("text", "text")]
    model = make(interaction=name, masked=masked, pairs=pairs, pair_weights=[1.0, 0.5, 2.0, 3.0])
    assert model.modality_names == NAMES
    expected = torch.tensor([oracle(model, row) for row in TRIPLES.tolist()], dtype=torch.float64)
    close(model.score(TRIPLES), expected, torch.float64)
    scores = model(TRIPLES, ENTITY, SIDE)
    close(model.pairs.total(scores.positive, scores.positive_present), expected, torch.float64)
    negative = model.pairs.total(scores.negative, scores.negative_present)
    wanted = torch.tensor([[oracle(model, corrupted(b, k)) for k in range(2)] for b in range(4)], dtype=torch.float64)
    close(negative, wanted, torch.float64)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("name", INTERACTIONS)
def test_all_pairs_and_lengths(name: str, normalize: bool) -> None:
    model = make(interaction=name, normalize=normalize)
    assert len(model.pairs) == 9
    expected = torch.tensor([oracle(model, row) for row in TRIPLES.tolist()], dtype=torch.float64)
    close(model.score(TRIPLES), expected, torch.float64)


@pytest.mark.parametrize("name", INTERACTIONS)
def test_candidates_score_as_triples_do(name: str) -> None:
    model = make(interaction=name)
    table = model.candidates()
    h, r, t = TRIPLES.unbind(1)
    every = torch.arange(E)
    for row, (head, relation, tail) in enumerate(TRIPLES.tolist()):
        as_tail = torch.stack([torch.full((E,), head), torch.full((E,), relation), every], 1)
        as_head = torch.stack([every, torch.full((E,), relation), torch.full((E,), tail)], 1)
        close(table.score_tails(h, r)[row], model.score(as_tail), torch.float64)
        close(table.score_heads(r, t)[row], model.score(as_head), torch.float64)
    result = RankingEvaluator(TRIPLES, num_entities=E, num_relations=R).evaluate(table, TRIPLES)
    assert result.filtered.rank().shape == (4, 2)


def test_corruptions_of_one_modality_keep_the_others() -> None:
    model = make()
    modality = torch.zeros(4, 2, 3, dtype=torch.bool)
    modality[:, :, 1] = True
    scores = model(TRIPLES, ENTITY, SIDE)
    composed, present = model.pairs.compose(scores, SIDE, modality)
    found = model.pairs.total(composed, present)
    vectors = ends(model)
    for b in range(4):
        for k in range(2):
            h, r, t = TRIPLES[b].tolist()
            head, tail, other = list(vectors[h]), list(vectors[t]), vectors[int(ENTITY[b, k])]
            (tail if SIDE[b, k] else head)[1] = other[1]
            expected = oracles_kg.multimodal(
                oracles_kg.transe_l1,
                head,
                oracles_kg.unit(model.relation[r].tolist()),
                tail,
                model.pairs.pairs,
                model.pairs.weights,
            )
            assert found[b, k].item() == pytest.approx(expected, rel=1e-11)


def test_gradients_by_finite_differences() -> None:
    model = make(interaction="complex")
    names = [name for name, _ in model.named_parameters()]

    def loss(*values: Tensor) -> Tensor:
        scores = torch.func.functional_call(model, dict(zip(names, values, strict=True)), (TRIPLES, ENTITY, SIDE))
        positive = model.pairs.total(scores.positive, scores.positive_present)
        return ranking_loss(
            positive, model.pairs.total(scores.negative, scores.negative_present), form="sigmoid", margin=1.0
        )

    assert torch.autograd.gradcheck(loss, list(model.parameters()))


def test_features_are_neither_trained_nor_saved() -> None:
    model = make()
    assert sorted(model.state_dict()) == sorted(name for name, _ in model.named_parameters())
    values, _ = features()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.1)
    before = [x.detach().clone() for x in model.parameters()]
    scores = model(TRIPLES, ENTITY, SIDE)
    loss = ranking_loss(model.pairs.total(scores.positive), model.pairs.total(scores.negative), margin=5.0)
    (loss + vector_regularizer(*model.loss_vectors(TRIPLES))).backward()
    optimiser.step()
    assert all(not x.equal(y) for x, y in zip(before, model.parameters(), strict=True))
    assert model._features_1.equal(values["image"])
    assert not model._features_1.requires_grad


def test_each_entity_is_projected_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, asked = make(), []
    vectors = model._vectors
    monkeypatch.setattr(model, "_vectors", lambda ids, taken: asked.append(ids) or vectors(ids, taken))
    model(TRIPLES[:1], ENTITY[:1], SIDE[:1])
    assert asked[0].tolist() == [0, 1, 3]
    # With as many draws as entities, all are projected.
    model(TRIPLES, ENTITY, SIDE)
    assert asked[1] is None


@pytest.mark.parametrize("name", INTERACTIONS)
def test_few_draws_score_as_many_do(name: str) -> None:
    model = make(interaction=name)
    many, few = model(TRIPLES, ENTITY, SIDE), model(TRIPLES[:1], ENTITY[:1], SIDE[:1])
    for x, y in zip(many, few, strict=True):
        close(x[:1].double(), y.double(), torch.float64)
    parameters = list(model.parameters())
    for x, y in zip(
        torch.autograd.grad(many.negative[:1].sum() + many.positive[0, 0], parameters),
        torch.autograd.grad(few.negative.sum() + few.positive[0, 0], parameters),
        strict=True,
    ):
        close(x, y, torch.float64)


@pytest.mark.parametrize("few", [False, True])
@pytest.mark.parametrize("name", INTERACTIONS)
def test_what_triples_share_is_scored_as_what_they_do_not(name: str, few: bool) -> None:
    model, triples, side = make(interaction=name), TRIPLES[[0, 1, 1, 3]], SIDE
    # The third triple was refused both candidates of its chunk; 6 was refused by all of its own.
    shared = torch.tensor([[3, 0], [2, 6]])
    entity = torch.tensor([[3, 0], [3, 0], [4, 1], [2, 0]])
    if few:
        triples, side, shared, entity = triples[:1], side[:1, :1], shared[:1, :1], entity[:1, :1]
    plain, chunked = model(triples, entity, side), model(triples, entity, side, shared)
    for x, y in zip(plain, chunked, strict=True):
        close(x.double(), y.double(), torch.float64)
    parameters = list(model.parameters())
    weight = torch.randn(plain.negative.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for x, y in zip(
        torch.autograd.grad((plain.negative * weight).sum() + plain.positive.sum(), parameters),
        torch.autograd.grad((chunked.negative * weight).sum() + chunked.positive.sum(), parameters),
        strict=True,
    ):
        close(x, y, torch.float64)


def test_absent_features_may_be_nan_and_take_no_gradient() -> None:
    model = make()
    values, present = features()
    dirty = {"image": values["image"], "text": values["text"].masked_fill(~present["text"].unsqueeze(1), torch.nan)}
    other = make().set_features(dirty, present)
    close(other.score(TRIPLES), model.score(TRIPLES), torch.float64)
    other.score(TRIPLES).sum().backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in other.parameters())
    # Entities 1, 3 and 6 have no text: triples between them leave its projection alone.
    (grad,) = torch.autograd.grad(model.score(torch.tensor([[1, 0, 3], [6, 1, 1]])).sum(), model.projections[1].weight)
    assert grad.eq(0).all()


def graph_of(schema: GraphSchema = SCHEMA, num_entities: int = E) -> MultimodalGraph:
    h, r, t = TRIPLES.unbind(1)
    g = dgl.heterograph({ETYPE: (h, t)}, num_nodes_dict={"entity": num_entities})
    g.edges[ETYPE].data["relation"] = r
    values, present = features()
    for name in schema.widths("entity"):
        x = torch.zeros(num_entities, values[name].shape[1])
        x[:E] = values[name].float()
        g.nodes["entity"].data[name] = x
        if name in present:
            mask = torch.ones(num_entities, dtype=torch.bool)
            mask[:E] = present[name]
            g.nodes["entity"].data[f"{name}_present"] = mask
            x[~mask] = 0
    return MultimodalGraph(g, schema)


def test_a_graph_brings_its_features() -> None:
    graph, model = graph_of(), MMTransE(SCHEMA, E, dim=DIM)
    assert model.prepare(graph) is graph
    assert model.present[:, 1:].equal(graph.present("entity"))
    again = MMTransE(SCHEMA, E, dim=DIM)
    again.load_state_dict(model.state_dict())
    again.set_features({name: graph.g.nodes["entity"].data[name] for name in NAMES[1:]}, features()[1])
    assert again.score(TRIPLES).equal(model.score(TRIPLES))
    with pytest.raises(SchemaError, match=r"expected 7 entities with \['image', 'text'\], got 8 without \[\]"):
        model.prepare(graph_of(num_entities=8))
    bare = GraphSchema(("entity",), (ETYPE,), {"entity": {"text": ModalitySpec("text", 2)}}, relations=SCHEMA.relations)
    with pytest.raises(SchemaError, match=r"got 7 without \['image'\]"):
        model.prepare(graph_of(bare))


def test_structure_alone_needs_no_features() -> None:
    bare = GraphSchema(
        ("entity",), (ETYPE,), {"entity": {"structure": ModalitySpec("structure", 9)}}, relations=SCHEMA.relations
    )
    model = MMDistMult(bare, E, dim=DIM)
    assert model.modality_names == ("structure",)
    assert model.score(TRIPLES).shape == (4,)


@pytest.mark.parametrize(
    ("name", "cls", "interaction"),
    [
        ("mm-transe", MMTransE, "transe"),
        ("mm-distmult", MMDistMult, "distmult"),
        ("mm-complex", MMComplEx, "complex"),
        ("mm-rotate", MMRotatE, "rotate"),
    ],
)
def test_registered_models_are_rebuilt_from_their_arguments(name: str, cls: type[MMKGE], interaction: str) -> None:
    assert MODELS.get(name) is cls
    assert "link-prediction" in cls.tasks
    assert RunConfig.resolve({"model.name": name}, None, {}).train.weight_decay == 0
    assert set(model_options(name)) == {"interaction", "dim", "pairs", "pair_weights", "normalize"}
    torch.manual_seed(0)
    own = cls(SCHEMA, E, dim=DIM, pairs=[("structure", "structure"), ("image", "structure")])
    assert own.interaction is INTERACTIONS[interaction]
    again = MODELS.get(name)(GraphSchema.from_dict(own.schema.to_dict()), **own.constructor_args())
    again.load_state_dict(own.state_dict())
    for model in (own, again):
        model.set_features({"image": features()[0]["image"].float()})
    assert again.score(TRIPLES).equal(own.score(TRIPLES))


def test_options_out_of_range() -> None:
    two = GraphSchema(("a", "b"), (), {}, relations=("r",))
    nameless = GraphSchema(("entity",), (ETYPE,), {"entity": {}})
    for schema, message in (
        (two, r"got \['a', 'b'\] and 1 relations"),
        (nameless, r"got \['entity'\] and 0 relations"),
    ):
        with pytest.raises(SchemaError, match=message):
            MMKGE(schema, E)
    with pytest.raises(ConfigError, match="num_entities: must be at least 1, got 0"):
        MMKGE(SCHEMA, 0)
    with pytest.raises(ConfigError, match="unknown interaction 'hole'"):
        MMKGE(SCHEMA, E, interaction="hole")
    with pytest.raises(ConfigError, match=r"RotatE, size: .* got 5"):
        MMRotatE(SCHEMA, E, dim=5)
    with pytest.raises(ConfigError, match="pairs: unknown modality 'images'; known: image, structure, text"):
        MMKGE(SCHEMA, E, pairs=[("structure", "images")])
    with pytest.raises(ConfigError, match=r"pairs: expected \(modality of the head, .* got \('text',\)"):
        MMKGE(SCHEMA, E, pairs=[("text",)])
    with pytest.raises(ConfigError, match="weights: expected 9 finite numbers above 0"):
        MMKGE(SCHEMA, E, pair_weights=[1.0])


def test_features_that_do_not_fit() -> None:
    model, (values, present) = MMKGE(SCHEMA, E, dim=DIM).double(), features()
    with pytest.raises(ConfigError, match="features of 'image' are needed, got none; call prepare"):
        model.score(TRIPLES)
    with pytest.raises(ConfigError, match=r"features: modality 'text' is missing, got \['image'\]"):
        model.set_features({"image": values["image"]})
    with pytest.raises(ConfigError, match="features: unknown modality 'sound'; known: image, text"):
        model.set_features({**values, "sound": values["text"]})
    with pytest.raises(ConfigError, match="present: unknown modality 'sound'"):
        model.set_features(values, {"sound": present["text"]})
    with pytest.raises(ShapeError, match=r"features\['text'\]: expected shape \(7, 2\), got \(7, 5\)"):
        model.set_features({**values, "text": values["image"]})
    with pytest.raises(ShapeError, match=r"present\['text'\]: expected shape \(7,\), got \(3,\)"):
        model.set_features(values, {"text": present["text"][:3]})
    with pytest.raises(ShapeError, match=r"present\['text'\]: expected dtype bool, got float32"):
        model.set_features(values, {"text": present["text"].float()})
    with pytest.raises(ConfigError, match=r"3 entities lack a modality, .* pairs \[\['text', 'structure'\]\]"):
        make(pairs=[("text", "structure")])


def test_triples_that_do_not_fit() -> None:
    model = make()
    with pytest.raises(ShapeError, match=r"positives: expected shape \(B, 3\), got \(4, 2\)"):
        model(TRIPLES[:, 1:], ENTITY, SIDE)
    with pytest.raises(ShapeError, match=r"entity: expected shape \(4, K\), got \(3, 2\)"):
        model(TRIPLES, ENTITY[1:], SIDE)
    with pytest.raises(ShapeError, match=r"side: expected shape \(4, 2\), got \(4, 1\)"):
        model(TRIPLES, ENTITY, SIDE[:, 1:])


@pytest.mark.parametrize("place", [(0, 0), (0, 1), (1, 2)])
@pytest.mark.parametrize("off", [-1, 99])
def test_ids_out_of_range_are_refused(place: tuple[int, int], off: int) -> None:
    model, triples = make(), TRIPLES.clone()
    triples[place] = off
    with pytest.raises(ConfigError, match=rf"MMKGE, positives\[.*: ids lie in \[0, {R if place[1] == 1 else E}\), got"):
        model.score(triples)
    with pytest.raises(ConfigError, match=rf"MMKGE, entity: ids lie in \[0, {E}\), got {off} at \(3, 1\)"):
        model(TRIPLES, ENTITY.index_put((torch.tensor(3), torch.tensor(1)), torch.tensor(off)), SIDE)


def test_features_that_are_not_finite_are_refused_where_they_are_present() -> None:
    (values, present), model = features(), make()
    values["text"][1], values["text"][3] = torch.nan, torch.inf
    assert bool(model.set_features(values, present).score(TRIPLES).isfinite().all())
    values["text"][4, 1] = torch.nan
    with pytest.raises(ConfigError, match=r"features\['text'\]: must be finite, got NaN or an infinity in row 4"):
        model.set_features(values, present)


@pytest.mark.parametrize("name", INTERACTIONS)
def test_second_derivatives_are_right_or_refused(name: str) -> None:
    model = make(interaction=name)
    found = [model(TRIPLES, ENTITY, SIDE).negative, model.candidates(differentiable=True).score_tails(*TRIPLES.T[:2])]
    for scores in found:
        (grad,) = torch.autograd.grad(scores.sum(), model.structure, create_graph=True)
        with pytest.raises(BackendError, match=r"second derivative|double backward"):
            torch.autograd.grad(grad.square().sum(), model.relation)
    model(TRIPLES, ENTITY, SIDE).negative.sum().backward()
    assert model.structure.grad is not None
    assert not model.structure.grad.requires_grad
