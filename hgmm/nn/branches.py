"""The branches of GraphMNL: predictions of one node from one source of evidence each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from hgmm.errors import ConfigError, SchemaError, ShapeError, unknown_name
from hgmm.graph.schema import STRUCTURE, GraphSchema
from hgmm.nn._graph_stack import BACKBONES, GraphStack
from hgmm.nn._modality_linear import ModalityLinear
from hgmm.nn._names import node_key
from hgmm.nn._relations import types_towards
from hgmm.nn.functional import count_present_neighbors, destination_rows, num_source_rows
from hgmm.nn.modality_encoder import ModalityEncoder
from hgmm.nn.structural_features import id_rows, structural_features, structural_width
from hgmm.typing import NodeDict

__all__ = ["FAMILIES", "BranchLibrary", "BranchOutput", "branch_names"]

FAMILIES = ("raw", "structure", "propagated")
STRUCTURES = ("features", "ids")


class BranchOutput(NamedTuple):
    """What `BranchLibrary` returns for ``n`` target nodes.

    Attributes
    ----------
    logits : Tensor
        ``(n, P, C)``; zero where the node has not the branch.
    available : Tensor
        ``(n, P)`` bool.
    states : Tensor
        ``(n, P, F)``, of which the logits are a Linear a branch; zero where the node has not the branch.
    """

    logits: Tensor
    available: Tensor
    states: Tensor


class BranchLibrary(nn.Module):
    """Predict each target node once from every source of evidence: its modalities, the structure, its neighbours.

    Branches stand in this order, whichever are on: ``raw:m`` for each modality m of the target, a network with one
    hidden layer on the node's own features; ``structure``, graph layers on `structural_features` and nothing else;
    ``propagated:m`` for each modality m, graph layers with self-loops on the features of m alone. All have parameters
    of their own.

    A node has ``raw:m`` if it has m; ``structure`` always; ``propagated:m`` if it or one of its in-neighbours, over any
    relation, has m. What comes from further away counts in the prediction, not for this.

    Parameters
    ----------
    schema : GraphSchema
        Types, relations, modalities, target and classes.
    branches : sequence of str, optional
        Which ones: families ``raw``, ``structure``, ``propagated``, or single names such as ``raw:text``. A family
        leaves out modalities of kind ``structure``, which describe the graph as the branch does.
    backbone : str, optional
        ``gcn``, ``sage``, ``gat`` or ``hgnn-ima``: `GraphConv`, `SAGEConv`, `GATConv` or `InterNodeAttention`, along
        all relations into each type, of which the mean is taken.
    hidden_size, num_layers, num_heads : int, optional
        F, the number of graph layers, and the heads of ``gat`` and ``hgnn-ima``.
    dropout : float, optional
        On the results of encoders and layers.
    input_norm : str, optional
        ``none``, ``batch`` or ``layer`` for features.
    structure : str, optional
        ``features``, or ``ids``: learned vectors tied to external ids, which say nothing about new nodes.
    structure_probes : int, optional
        As `num_probes` of `structural_features`.
    id_table_size : int, optional
        Rows of the table behind ``ids``, for each node type.

    Attributes
    ----------
    names : tuple of str
        The P branches.

    Raises
    ------
    ConfigError
        An option is unknown or out of range, no node can have a branch that is named, or there is none.
    SchemaError
        The schema has no target or no classes.

    Notes
    -----
    The propagated branches are one tensor ``(N, M, F)`` through all layers, so an edge is read once for all of them.

    References
    ----------
    GraphMNL, arXiv 2606.12863, names the three families; the paper's text and code could not be read, so what is in
    them is a reconstruction: ours, from published parts.

    Examples
    --------
    >>> import torch
    >>> from hgmm.dgl_compat import dgl
    >>> from hgmm.graph import ModalitySpec
    >>> etype = ("item", "like", "item")
    >>> schema = GraphSchema(
    ...     ("item",), (etype,), {"item": {"text": ModalitySpec("text", 4)}}, target="item", classes=("a", "b")
    ... )
    >>> g = dgl.heterograph({etype: ([0, 1], [1, 2])})
    >>> library = BranchLibrary(schema, hidden_size=8)
    >>> library.names
    ('raw:text', 'structure', 'propagated:text')
    >>> features, present = {"item": {"text": torch.randn(3, 4)}}, {"item": torch.ones(3, 1, dtype=torch.bool)}
    >>> structure = library.structure_inputs(g, {"item": ["x", "y", "z"]})
    >>> library([g, g], features, present, structure=structure).logits.shape
    torch.Size([3, 3, 2])
    """

    def __init__(
        self,
        schema: GraphSchema,
        *,
        branches: Sequence[str] = FAMILIES,
        backbone: str = "gcn",
        hidden_size: int = 64,
        num_layers: int = 2,
        num_heads: int = 4,
        dropout: float = 0.2,
        input_norm: str = "batch",
        structure: str = "features",
        structure_probes: int = 64,
        id_table_size: int = 2**14,
    ) -> None:
        super().__init__()
        least = {
            "hidden_size": (hidden_size, 1),
            "num_layers": (num_layers, 1),
            "num_heads": (num_heads, 1),
            "structure_probes": (structure_probes, 0),
            "id_table_size": (id_table_size, 1),
        }
        for name, (value, bound) in least.items():
            if value < bound:
                raise ConfigError(f"BranchLibrary, {name}: must be at least {bound}, got {value}")
        if not 0 <= dropout < 1:
            raise ConfigError(f"BranchLibrary, dropout: must be at least 0 and below 1, got {dropout}")
        for name, chosen, known in (("backbone", backbone, BACKBONES), ("structure", structure, STRUCTURES)):
            if chosen not in known:
                raise ConfigError(f"BranchLibrary, {name}: {unknown_name(name, chosen, known)}")
        if backbone in ("gat", "hgnn-ima") and hidden_size % num_heads:
            raise ConfigError(
                f"BranchLibrary, hidden_size: must be a multiple of num_heads={num_heads} for the backbone "
                f"{backbone!r}, got {hidden_size}; change one of the two"
            )
        self.schema = schema
        self.names = branch_names(schema, branches)
        self.target = str(schema.target)
        self.structure = structure
        self.structure_probes = structure_probes
        self.id_table_size = id_table_size
        self.reach = types_towards(self.target, schema.canonical_etypes, num_layers)[0]
        self._raw = _modalities_of("raw", self.names)
        self._propagated = _modalities_of("propagated", self.names)
        encoding: dict[str, Any] = {"input_norm": input_norm, "dropout": dropout}
        layers: dict[str, Any] = {
            "target": self.target,
            "hidden_size": hidden_size,
            "num_layers": num_layers,
            "num_heads": num_heads,
            "dropout": dropout,
        }
        types = (schema.ntypes, schema.canonical_etypes)
        if self._raw:
            widths = {self.target: self._widths(self.target, self._raw)}
            self.raw_encoder = ModalityEncoder(widths, hidden_size, modality_names=self._raw, **encoding)
        if STRUCTURE in self.names:
            self.structure_encoder = self._structure_encoder(hidden_size, encoding)
            self.structure_layers = GraphStack(backbone, *types, num_modalities=1, **layers)
        if self._propagated:
            widths = {ntype: self._widths(ntype, self._propagated) for ntype in sorted(self.reach)}
            self.propagated_encoder = ModalityEncoder(widths, hidden_size, modality_names=self._propagated, **encoding)
            self.propagated_layers = GraphStack(backbone, *types, num_modalities=len(self._propagated), **layers)
        self.heads = ModalityLinear(len(self.names), hidden_size, schema.num_classes, bias=True)

    def _widths(self, ntype: str, modalities: Sequence[str]) -> dict[str, int]:
        return {name: width for name, width in self.schema.widths(ntype).items() if name in modalities}

    def _structure_encoder(self, hidden_size: int, encoding: Mapping[str, Any]) -> nn.Module:
        if self.structure == "ids":
            tables = {node_key(t): nn.EmbeddingBag(self.id_table_size, hidden_size, mode="sum") for t in self.reach}
            return nn.ModuleDict(dict(sorted(tables.items())))
        etypes = self.schema.canonical_etypes
        widths = {ntype: {STRUCTURE: structural_width(etypes, ntype)} for ntype in sorted(self.reach)}
        return ModalityEncoder(widths, hidden_size, **encoding)

    def structure_inputs(self, graph: Any, node_ids: Mapping[str, Sequence[str]]) -> NodeDict:
        """Return what the structure branch reads, for the whole graph; blocks then need the rows of their sources.

        Parameters
        ----------
        graph : dgl.DGLGraph
            The whole graph, with all types and relations of the schema.
        node_ids : mapping of str to sequence of str
            External ids by node type.

        Returns
        -------
        dict of str to Tensor
            By node type `structural_features`, or ``(N, 2)`` int64 rows of the table behind ``ids``.
        """
        if self.structure == "ids":
            return {t: id_rows(node_ids[t], self.id_table_size).to(graph.device) for t in self.schema.ntypes}
        etypes = self.schema.canonical_etypes
        return structural_features(graph, node_ids, etypes, num_probes=self.structure_probes)

    def forward(
        self,
        graphs: Sequence[Any],
        features: Mapping[str, Mapping[str, Tensor]],
        present: Mapping[str, Tensor],
        *,
        structure: NodeDict | None = None,
        out_degrees: NodeDict | None = None,
    ) -> BranchOutput:
        """Predict the target nodes of the last graph.

        Parameters
        ----------
        graphs : sequence of dgl.DGLGraph
            One a layer: a graph as often as there are layers, or message-flow blocks.
        features : mapping of str to mapping of str to Tensor
            ``(N, width)`` by node type and modality, of the first graph's source nodes.
        present : mapping of str to Tensor
            ``(N, M)`` bool by node type, in the schema's order of modalities.
        structure : dict of str to Tensor, optional
            What `structure_inputs` returned, of the first graph's source nodes; needed by the structure branch.
        out_degrees : dict of str to Tensor, optional
            ``(N, R)`` by node type: to how many nodes each source sends, over the relations that start at its type, in
            the schema's order. Needed by backbone ``gcn`` on blocks.

        Returns
        -------
        BranchOutput
            Logits, availability and states of the P branches.

        Raises
        ------
        ShapeError
            The structure branch is on and `structure` is None; or a tensor does not fit the graph.
        ConfigError
            Backbone ``gcn`` gets blocks without `out_degrees`.
        SchemaError
            The graph has an unknown type or relation, or a feature is missing.
        """
        last = graphs[-1]
        states, available = [], []
        if self._raw:
            # Destinations of a block come first among its sources, so those of the last one come first in the first.
            own = {name: destination_rows(last, self.target, features[self.target][name]) for name in self._raw}
            has = destination_rows(last, self.target, self._columns(present, self._raw)[self.target])
            states.append(self.raw_encoder({self.target: own}, {self.target: has})[self.target])
            available.append(has)
        if STRUCTURE in self.names:
            states.append(self.structure_layers(graphs, self._encode_structure(structure), None, out_degrees))
            available.append(states[-1].new_ones(states[-1].shape[:2], dtype=torch.bool))
        if self._propagated:
            masks = self._columns(present, self._propagated)
            inputs = {t: {m: features[t][m] for m in self._widths(t, self._propagated)} for t in masks}
            h = self.propagated_encoder(inputs, masks)
            states.append(self.propagated_layers(graphs, h, masks, out_degrees))
            available.append(self._within_one_hop(last, masks))
        has_branch = torch.cat(available, 1)
        hidden = torch.cat(states, 1).masked_fill(~has_branch.unsqueeze(-1), 0)
        logits = self.heads(hidden).masked_fill(~has_branch.unsqueeze(-1), 0)
        return BranchOutput(logits, has_branch, hidden)

    def _columns(self, present: Mapping[str, Tensor], modalities: Sequence[str]) -> NodeDict:
        chosen = [self.schema.modality_names.index(name) for name in modalities]
        return {ntype: present[ntype][:, chosen] for ntype in sorted(self.reach) if ntype in present}

    def _encode_structure(self, structure: NodeDict | None) -> NodeDict:
        if structure is None:
            raise ShapeError(
                "BranchLibrary, structure: the branch 'structure' is on and needs it, got None; pass the rows of what "
                "structure_inputs returns"
            )
        found = {ntype: structure[ntype] for ntype in sorted(self.reach) if ntype in structure}
        if self.structure == "features":
            encode = cast(ModalityEncoder, self.structure_encoder)
            return cast(NodeDict, encode({ntype: {STRUCTURE: x} for ntype, x in found.items()}))
        tables = cast(nn.ModuleDict, self.structure_encoder)
        return {ntype: tables[node_key(ntype)](x).unsqueeze(1) for ntype, x in found.items()}

    def _within_one_hop(self, last: Any, masks: NodeDict) -> Tensor:
        """Say which target node has a modality or an in-neighbour that has it, ``(n, M)``."""
        has = destination_rows(last, self.target, masks[self.target])
        for etype in last.canonical_etypes:
            if etype[2] == self.target and last.num_edges(etype):
                sources = masks[etype[0]][: num_source_rows(last, etype[0])]
                has = has | (count_present_neighbors(last, etype, sources) > 0)
        return has


def branch_names(schema: GraphSchema, branches: Sequence[str] = FAMILIES) -> tuple[str, ...]:
    """Return the branches that a choice of families and single names stands for, in `BranchLibrary`'s order.

    Parameters
    ----------
    schema : GraphSchema
        With target and classes.
    branches : sequence of str, optional
        As in `BranchLibrary`.

    Raises
    ------
    ConfigError
        A name is unknown, or no node can have the branch: the target does not declare the modality, nor, for a
        propagated one, does a type with a relation into it. Or no branch is left.
    SchemaError
        The schema has no target or no classes.
    """
    if schema.target is None or not schema.classes:
        raise SchemaError(
            f"BranchLibrary, schema: needs a target node type with classes, got target={schema.target!r} and "
            f"{len(schema.classes)} classes; name them in the schema"
        )
    if isinstance(branches, str):
        raise ConfigError(f"BranchLibrary, branches: expected a list of names, got {branches!r}; put it into a list")
    near = {schema.target} | {src for src, _, dst in schema.canonical_etypes if dst == schema.target}
    known = [f"raw:{m}" for m in schema.modality_names if m in schema.modalities[schema.target]]
    known.append(STRUCTURE)
    known += [f"propagated:{m}" for m in schema.modality_names if any(m in schema.modalities[t] for t in near)]
    for name in branches:
        if name not in (*FAMILIES, *known):
            raise ConfigError(
                f"BranchLibrary, branches: {unknown_name('branch', name, (*FAMILIES, *known))} A branch is left out if "
                "no node can have it"
            )
    kinds = {m: spec.kind for specs in schema.modalities.values() for m, spec in specs.items()}
    families = {name: name.split(":")[0] for name in known if kinds.get(name.partition(":")[2]) != STRUCTURE}
    names = tuple(name for name in known if name in branches or families.get(name) in branches)
    if not names:
        raise ConfigError(
            f"BranchLibrary, branches: no branch is left of {list(branches)}; choose among {', '.join(known)}"
        )
    return names


def _modalities_of(family: str, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(name.removeprefix(f"{family}:") for name in names if name.startswith(f"{family}:"))
