"""Embeddings of multimodal knowledge graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hgmm.errors import ConfigError, SchemaError, unknown_name
from hgmm.graph.multimodal import MultimodalGraph
from hgmm.graph.schema import PRESENT_SUFFIX, STRUCTURE, GraphSchema
from hgmm.kernels._checks import check_axes, check_below
from hgmm.kg.candidate_table import CandidateTable
from hgmm.kg.interactions import get_interaction
from hgmm.kg.pair_scores import ModalityPairs, PairScores
from hgmm.models._entity_vectors import Projected, entity_vectors, renumber
from hgmm.models._knowledge_schema import check_finite, check_schema, read_pairs
from hgmm.registry import MODELS

__all__ = ["MMKGE", "MMComplEx", "MMDistMult", "MMRotatE", "MMTransE"]

# How embeddings are trained unless told otherwise; regularisation is a matter of the loss.
_SETTINGS = {
    "train.epochs": 100,
    "train.learning_rate": 1e-2,
    "train.weight_decay": 0.0,
    "train.scheduler": "none",
    "train.gradient_clip": 0.0,
    "train.label_smoothing": 0.0,
    "train.monitor": "mrr",
    "train.patience": 0,
    "train.eval_every": 10,
}


class MMKGE(nn.Module):
    """Score triples by learned vectors of the entities and by projections of what is known of them.

    Entity e has M vectors of D numbers: modality 0, structure, is learned; modality m is ``W_m x_m[e] + b_m`` of its
    features. A relation has one vector. Each pair (a, b) of modalities gives a score of ``(h_a, r, t_b)``, and
    `hgmm.kg.ModalityPairs` adds them up.

    Parameters
    ----------
    schema : GraphSchema
        Of a knowledge graph: one node type, and the names of the relations.
    num_entities : int
        E.
    interaction : str, optional
        A name in `hgmm.kg.INTERACTIONS`. Default: the class's own.
    dim : int, optional
        D; even for ``complex`` and ``rotate``.
    pairs : sequence of (str, str), optional
        (Modality of the head, modality of the tail); ``structure`` is the learned one. Default: all M x M. Modalities
        in no pair are left out.
    pair_weights : sequence of float, optional
        One number above 0 a pair. Default: 1 each.
    normalize : bool, optional
        Use entities' vectors, projections included, at length 1, and relations' if the interaction adds them to those.
        Default: as the interaction does (only ``transe``).

    Attributes
    ----------
    schema : GraphSchema
        As given.
    modality_names : tuple of str
        The M modalities, ``structure`` first.
    pairs : hgmm.kg.ModalityPairs
        The pairs.
    present : Tensor
        ``(E, M)`` bool: who has what. A buffer that is not saved.
    row_gradients : bool
        Give `structure` a sparse gradient, with the rows of the entities of the batch; False unless set. For graphs
        with far more entities than a step draws (``train.optimizer=adamw-rows``).
    tasks, settings
        What the model can be trained for, and how it is unless told otherwise, by configuration key.

    Raises
    ------
    ConfigError
        An option is unknown or out of range.
    SchemaError
        The schema has several node types or no relations.

    Notes
    -----
    Features are constants: buffers that are neither trained nor saved. `prepare` reads them from a graph,
    `set_features` takes tensors.

    References
    ----------
    MANS, IJCNN 2023, arXiv 2304.11618, and its released code for ``transe`` with one image modality
    (`hgmm.models.official`). Other interactions, any number of modalities and absent ones are ours.

    Examples
    --------
    >>> from hgmm.graph import ModalitySpec
    >>> schema = GraphSchema(
    ...     ("entity",), (("entity", "triple", "entity"),), {"entity": {"image": ModalitySpec("image", 3)}},
    ...     relations=("likes",),
    ... )
    >>> model = MMTransE(schema, 5, dim=4).set_features({"image": torch.rand(5, 3)})
    >>> model.score(torch.tensor([[0, 0, 1], [2, 0, 3]])).shape
    torch.Size([2])
    >>> scores = model(torch.tensor([[0, 0, 1]]), torch.tensor([[2, 3]]), torch.tensor([[0, 1]]))
    >>> scores.negative.shape
    torch.Size([1, 2, 4])
    """

    tasks = ("link-prediction",)
    settings: Mapping[str, Any] = MappingProxyType(_SETTINGS)
    own_interaction = "transe"
    row_gradients = False
    present: Tensor

    def __init__(
        self,
        schema: GraphSchema,
        num_entities: int,
        *,
        interaction: str | None = None,
        dim: int = 128,
        pairs: Sequence[Sequence[str]] | None = None,
        pair_weights: Sequence[float] | None = None,
        normalize: bool | None = None,
    ) -> None:
        super().__init__()
        self.schema = schema
        self.num_entities = num_entities
        self._ntype, widths = check_schema(schema, num_entities)
        self._widths = widths
        name = self.own_interaction if interaction is None else interaction
        self.interaction = get_interaction(name)
        self.normalize = self.interaction.normalized if normalize is None else normalize
        self.modality_names, named = read_pairs([STRUCTURE, *widths], pairs)
        weights = None if pair_weights is None else list(pair_weights)
        self.pairs = ModalityPairs(named, weights)
        self.structure = nn.Parameter(nn.init.xavier_uniform_(torch.empty(num_entities, dim)))
        self.relation = nn.Parameter(torch.empty(len(schema.relations), self.interaction.relation_size(dim)))
        with torch.no_grad():
            self.interaction.init_relation_(self.relation)
        self.projections = nn.ModuleList(nn.Linear(widths[name], dim) for name in self.modality_names[1:])
        for m in range(1, len(self.modality_names)):
            self.register_buffer(f"_features_{m}", None, persistent=False)
        present = torch.ones(num_entities, len(self.modality_names), dtype=torch.bool)
        self.register_buffer("present", present, persistent=False)
        self._complete = True
        self._args = {
            "num_entities": num_entities,
            "interaction": name,
            "dim": dim,
            "pairs": None if pairs is None else [list(pair) for pair in pairs],
            "pair_weights": weights,
            "normalize": normalize,
        }

    @staticmethod
    def graph_sizes(graph: MultimodalGraph) -> dict[str, int]:
        """Return what the constructor takes from a graph beside its schema."""
        return {"num_entities": graph.num_nodes(graph.schema.ntypes[0])}

    def constructor_args(self) -> dict[str, Any]:
        """Return what rebuilds the model beside its schema: ``cls(schema, **constructor_args())``; JSON data."""
        return dict(self._args)

    def prepare(self, graph: MultimodalGraph) -> MultimodalGraph:
        """Take the features and presence masks of a graph; `set_features` without a graph.

        Raises
        ------
        SchemaError
            The graph has another number of entities, or lacks a modality.
        """
        frame = graph.g.nodes[self._ntype].data
        missing = [name for name in self.modality_names[1:] if name not in frame]
        if missing or graph.num_nodes(self._ntype) != self.num_entities:
            raise SchemaError(
                f"MMKGE, graph: expected {self.num_entities} entities with {list(self.modality_names[1:])}, got "
                f"{graph.num_nodes(self._ntype)} without {missing}; pass the graph that the model was made for"
            )
        masks = {name: frame[name + PRESENT_SUFFIX] for name in self.modality_names if name + PRESENT_SUFFIX in frame}
        self.set_features({name: frame[name] for name in self.modality_names[1:]}, masks)
        return graph

    def set_features(self, features: Mapping[str, Tensor], present: Mapping[str, Tensor] | None = None) -> MMKGE:
        """Take the entities' features, on the device of the model; nothing is copied that lies there.

        Parameters
        ----------
        features : mapping of str to Tensor
            ``(E, W)`` by modality, for each in `modality_names` but structure; finite where present.
        present : mapping of str to Tensor, optional
            ``(E,)`` bool: who has it. Default: all.

        Returns
        -------
        MMKGE
            The model itself.

        Raises
        ------
        ConfigError
            A modality is missing or unknown, a feature is not finite, or some triple would be left without any pair.
        ShapeError
            A tensor does not fit.
        """
        given, masks, names = dict(features), dict(present or {}), self.modality_names[1:]
        for argument, found in (("features", given), ("present", masks)):
            for name in found:
                if name not in names:
                    raise ConfigError(f"MMKGE, {argument}: {unknown_name('modality', name, names)}")
        mask = torch.ones_like(self.present)
        for m, name in enumerate(names, start=1):
            if name not in given:
                raise ConfigError(f"MMKGE, features: modality {name!r} is missing, got {sorted(given)}; pass all")
            x = given[name].to(mask.device)
            hint = "one row an entity, columns as in the schema"
            check_axes("MMKGE", f"features[{name!r}]", x, (self.num_entities, self._widths[name]), hint=hint)
            if name in masks:
                has = masks[name].to(mask.device)
                check_axes("MMKGE", f"present[{name!r}]", has, (self.num_entities,), hint=hint, dtype=torch.bool)
                mask[:, m] = has
                # What is absent may hold anything, and a weight of 0 does not keep NaN out of a gradient.
                if not bool(x[~has].eq(0).all()):
                    x = x.masked_fill(~has.unsqueeze(1), 0)
            check_finite(f"MMKGE, features[{name!r}]", x)
            self.register_buffer(f"_features_{m}", x, persistent=False)
        self._complete = bool(mask.all())
        if not self._complete and (0, 0) not in self.pairs.pairs:
            raise ConfigError(
                f"MMKGE, present: {int((~mask).any(1).sum())} entities lack a modality, so triples may have none of "
                f"the pairs {self._args['pairs']}; add (structure, structure), or fill the features"
            )
        self.present = mask
        return self

    def project(self, entities: Tensor | None = None) -> Tensor:
        """Return the vectors of entities ``(U,)``, or of all: ``(U, M, D)``; anything where a modality is absent.

        Raises
        ------
        ConfigError
            Features were not set.
        """
        return self._vectors(entities, torch.zeros(0, dtype=torch.int64, device=self.structure.device))[0]

    def relation_vectors(self, relations: Tensor) -> Tensor:
        """Return the vectors of relations ``(*)``, as the interaction takes them: ``(*, D_relation)``."""
        r = self.relation[relations]
        return F.normalize(r, dim=-1) if self.normalize and self.interaction.normalized else r

    def forward(self, positives: Tensor, entity: Tensor, side: Tensor, shared: Tensor | None = None) -> PairScores:
        """Score triples and corruptions of one end in all its modalities.

        Parameters
        ----------
        positives : Tensor
            ``(B, 3)`` int64 rows (head, relation, tail).
        entity : Tensor
            ``(B, K)`` int64: what stands in place of the end.
        side : Tensor
            ``(B, K)``: 0 where the head, 1 where the tail is replaced.
        shared : Tensor, optional
            ``(C, K)`` int64: what `entity` mostly holds in the rows of a chunk (`hgmm.sampling.NegativeBatch.shared`).
            It changes no score; inner products with what is shared are matrix products.

        Returns
        -------
        PairScores
            By pair; ``pairs.total`` adds them up, ``pairs.compose`` makes corruptions of single modalities of them.

        Raises
        ------
        ShapeError
            The tensors do not fit each other.
        ConfigError
            Features were not set, or an id is out of range (looked for on the CPU).

        Notes
        -----
        Each distinct entity is projected once, however often it was drawn. With as many draws as entities all are,
        unless `row_gradients` is on: finding the few that were not drawn takes longer. Nothing of size B x K x D
        is made.
        """
        check_axes("MMKGE", "positives", positives, ("B", 3), hint="rows are (head, relation, tail)")
        check_axes("MMKGE", "entity", entity, (len(positives), "K"), hint="K corruptions of each triple")
        check_axes("MMKGE", "side", side, tuple(entity.shape), hint="one side a corruption")
        check_below("MMKGE, positives[:, ::2]", positives[:, ::2], self.num_entities, "the number of entities")
        check_below("MMKGE, positives[:, 1]", positives[:, 1], len(self.relation), "the number of relations")
        check_below("MMKGE, entity", entity, self.num_entities, "the number of entities")
        head, relation, tail = positives.unbind(1)
        drawn = torch.cat([tail.unsqueeze(1), entity], 1)
        ids, kept, mostly = None, torch.cat([tail, head]), entity if shared is None else shared
        if self.row_gradients or kept.numel() + mostly.numel() < self.num_entities:
            ids, place = renumber(self.num_entities, drawn, kept, mostly)
            drawn, kept, shared = place[drawn], place[kept], None if shared is None else place[shared]
        table, of_kept = self._vectors(ids, kept)
        t, h = of_kept.chunk(2)
        r = self.relation_vectors(relation).unsqueeze(1)
        queries = torch.stack([self.interaction.head_query(r, t), self.interaction.tail_query(h, r)], 1)
        # The true tail comes first, so that one pass over the table scores both kinds.
        sides = torch.cat([torch.ones_like(tail, dtype=torch.int8).unsqueeze(1), side.to(torch.int8)], 1)
        pairs = self.pairs.index(table.device)
        scores = self.interaction.score_gathered(queries, table, drawn, sides, pairs, shared=shared)
        positive, negative = scores[:, 0], scores[:, 1:]
        if self._complete:
            return PairScores(positive, negative)
        of_head, of_tail = self.present[head].unsqueeze(1), self.present[tail].unsqueeze(1)
        other, is_tail = self.present[entity], side.bool().unsqueeze(2)
        return PairScores(
            positive,
            negative,
            self.pairs.present(of_head, of_tail).squeeze(1),
            self.pairs.present(torch.where(is_tail, of_head, other), torch.where(is_tail, other, of_tail)),
        )

    def _vectors(self, entities: Tensor | None, taken: Tensor) -> tuple[Tensor, Tensor]:
        """Return `project` of entities, each at most once, and some of its rows again."""
        projected = []
        for m, layer in enumerate(self.projections, start=1):
            features = getattr(self, f"_features_{m}")
            if features is None:
                raise ConfigError(
                    f"MMKGE: features of {self.modality_names[m]!r} are needed, got none; call prepare(graph) or "
                    "set_features"
                )
            projected.append(Projected(features, *layer.parameters()))
        return entity_vectors(
            self.structure, projected, entities, taken, normalize=self.normalize, row_gradient=self.row_gradients
        )

    def score(self, triples: Tensor) -> Tensor:
        """Score triples ``(n, 3)``: ``(n,)``, higher is more plausible.

        Raises
        ------
        ShapeError
            `triples` has another shape.
        ConfigError
            Features were not set.
        """
        nothing = triples.new_empty(len(triples), 0)
        scores = self(triples, nothing, nothing)
        return self.pairs.total(scores.positive, scores.positive_present)

    def loss_vectors(self, triples: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the learned vectors of heads, relations and tails ``(n, D)`` each, for `vector_regularizer`."""
        head, relation, tail = triples.unbind(1)
        ends = [F.embedding(end, self.structure, sparse=self.row_gradients) for end in (head, tail)]
        return ends[0], self.relation[relation], ends[1]

    def candidates(self, *, differentiable: bool = False) -> CandidateTable:
        """Return all entities as candidates, projected once, for `hgmm.kg.RankingEvaluator`; a snapshot.

        With `differentiable` gradients of the scores reach the model, for losses over all entities.

        Raises
        ------
        ConfigError
            Features were not set.
        """
        present = None if self._complete else self.present
        with torch.set_grad_enabled(differentiable and torch.is_grad_enabled()):
            relations = self.relation_vectors(torch.arange(len(self.relation), device=self.relation.device))
            return CandidateTable(self.project(), relations, self.interaction, pairs=self.pairs, present=present)


@MODELS.register("mm-transe")
class MMTransE(MMKGE):
    """`MMKGE` with relations as translations, ``-|h + r - t|``; L1, or L2 by ``interaction="transe-l2"``."""


@MODELS.register("mm-distmult")
class MMDistMult(MMKGE):
    """`MMKGE` with the diagonal bilinear form."""

    own_interaction = "distmult"


@MODELS.register("mm-complex")
class MMComplEx(MMKGE):
    """`MMKGE` with the diagonal form on complex vectors."""

    own_interaction = "complex"


@MODELS.register("mm-rotate")
class MMRotatE(MMKGE):
    """`MMKGE` with relations as rotations."""

    own_interaction = "rotate"
