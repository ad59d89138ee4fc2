"""A DGL heterograph together with what is known about its nodes: modalities, presence, labels, splits, names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from hgmm.errors import ConfigError, SchemaError, raise_problems, unknown_name
from hgmm.graph.schema import KINDS, PRESENT_SUFFIX, STRUCTURE, GraphSchema, ModalitySpec
from hgmm.graph.structure import STRUCTURE_SOURCE, renew_structure, structure_features
from hgmm.graph.validation import graph_problems
from hgmm.triples import TripleSet

__all__ = ["SOURCES", "SPLITS", "DataSource", "MultimodalGraph"]

SPLITS = ("train", "val", "test")
TRIPLE_ETYPE = ("entity", "triple", "entity")
SOURCES = ("official", "local", "embedded", "synthetic")


@dataclass(frozen=True)
class DataSource:
    """Where a graph's content comes from; every result that is shown or stored carries it.

    Parameters
    ----------
    source : str
        ``official`` (all published files), ``local`` (a user's data, or published files of which some are absent),
        ``embedded`` (ships with hgmm) or ``synthetic`` (generated).
    files : sequence of str, optional
        Names of the files that were read.
    sha256 : mapping of str to str, optional
        Checksum of each file.
    absent : sequence of str, optional
        What is not there, as ``ntype.modality`` or a file name.
    note : str, optional
        A sentence for the reader of a result, for example that the data is a stand-in.
    corrupted : sequence of str, optional
        What `hgmm.graph.corrupt` did to it, as in ``missing:image=0.3``.

    Raises
    ------
    ConfigError
        If `source` is not one of the four.
    """

    source: str = "local"
    files: tuple[str, ...] = ()
    sha256: Mapping[str, str] = field(default_factory=dict)
    absent: tuple[str, ...] = ()
    note: str = ""
    corrupted: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise ConfigError(f"DataSource source: {unknown_name('source', self.source, SOURCES)}")

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "source": self.source,
            "files": list(self.files),
            "sha256": dict(self.sha256),
            "absent": list(self.absent),
            "note": self.note,
            "corrupted": list(self.corrupted),
        }


class MultimodalGraph:
    """A heterograph whose nodes carry several modalities, some of them missing.

    Features live in DGL's own frames, ``g.nodes[ntype].data[modality]``, with a bool mask
    ``g.nodes[ntype].data["<modality>_present"]`` (True = present) where only some nodes have the modality, so DGL's
    samplers and blocks carry them along. Labels are ``data["label"]`` of the target type (int64, -1 = none), splits the
    bool masks ``data["train_mask"]``, ``"val_mask"`` and ``"test_mask"``.

    Parameters
    ----------
    g : dgl.DGLGraph
        The graph with these frames filled.
    schema : GraphSchema
        What it consists of.
    node_ids : mapping of str to sequence of str, optional
        External ids by node type; default ``"0", "1", …``. They travel into checkpoints and predictions.
    node_names : mapping of str to sequence of str, optional
        Display names by node type, where there are better ones than the ids.
    source : DataSource, optional
        Where the content comes from.
    transforms : mapping, optional
        JSON data by ``ntype`` and modality: what was fitted to turn raw columns into features. `GraphBuilder` fills it.
    triples : TripleSet, optional
        The triples, if this is a knowledge graph.
    name : str, optional
        Name for displays and records.

    Raises
    ------
    SchemaError
        If the content does not fit the schema; the message lists all problems found.

    Notes
    -----
    A node type without any feature gets the modality ``structure`` (`hgmm.graph.structure.structure_features`), so that
    every type has something to start from. The given graph object is not changed.
    """

    def __init__(
        self,
        g: Any,
        schema: GraphSchema,
        *,
        node_ids: Mapping[str, Sequence[str]] | None = None,
        node_names: Mapping[str, Sequence[str]] | None = None,
        source: DataSource | None = None,
        transforms: Mapping[str, Any] | None = None,
        triples: TripleSet | None = None,
        name: str = "graph",
    ) -> None:
        self.name = name
        self.source = source or DataSource()
        self.transforms: dict[str, Any] = dict(transforms or {})
        self.triples = triples
        counted = {t: list(map(str, range(g.num_nodes(t)))) for t in g.ntypes if not len((node_ids or {}).get(t, ()))}
        self.node_ids = {t: list(names) for t, names in (node_ids or {}).items()} | counted
        self.node_names = {t: list(names) for t, names in (node_names or {}).items()}
        problems = graph_problems(g, schema, self.node_ids, self.node_names, triples)
        raise_problems(problems, where=f"graph {name!r}", error=SchemaError)
        self.g, self.schema = _with_structure(g, schema, self.node_ids)

    def __repr__(self) -> str:
        nodes = ", ".join(f"{t}: {self.g.num_nodes(t):,}" for t in self.schema.ntypes)
        modalities = ", ".join(self.schema.modality_names)
        return f"MultimodalGraph({self.name!r}, nodes {{{nodes}}}, edges {self.g.num_edges():,}, {modalities})"

    @classmethod
    def from_triples(
        cls,
        triples: TripleSet,
        *,
        features: Mapping[str, Tensor] | None = None,
        present: Mapping[str, Tensor] | None = None,
        kinds: Mapping[str, str] | None = None,
        sources: Mapping[str, str] | None = None,
        source: DataSource | None = None,
        name: str = "knowledge graph",
    ) -> MultimodalGraph:
        """Make the graph of a knowledge graph: node type ``entity``, edge type ``triple`` for the training triples.

        Parameters
        ----------
        triples : TripleSet
            Triples and vocabularies. The relation of each edge is its data ``relation``.
        features : mapping of str to Tensor, optional
            ``(num_entities, width)`` by modality.
        present : mapping of str to Tensor, optional
            ``(num_entities,)`` bool by modality, where not every entity has it.
        kinds : mapping of str to str, optional
            Kind of each modality. Default: its name if that is a kind, else ``other``.
        sources : mapping of str to str, optional
            Where the features of each modality come from, in words.
        source, name
            As in the constructor.

        Raises
        ------
        SchemaError
            If the features do not fit; all problems are listed.
        """
        g = _triple_graph(triples)
        specs = {}
        for modality, values in (features or {}).items():
            kind = (kinds or {}).get(modality, modality if modality in KINDS else "other")
            specs[modality] = ModalitySpec(kind, int(values.shape[1]), (sources or {}).get(modality, ""))
            g.nodes["entity"].data[modality] = values
        for modality, mask in (present or {}).items():
            g.nodes["entity"].data[modality + PRESENT_SUFFIX] = mask
        schema = GraphSchema(("entity",), (TRIPLE_ETYPE,), {"entity": specs}, relations=triples.relation_vocab)
        ids = {"entity": triples.entity_vocab}
        return cls(g, schema, node_ids=ids, source=source, triples=triples, name=name)

    @property
    def target(self) -> str:
        """The node type that carries labels.

        Raises
        ------
        SchemaError
            If the graph has none.
        """
        if self.schema.target is None:
            raise SchemaError(f"graph {self.name!r}: it has no target node type; name one in the schema's `target`")
        return self.schema.target

    @property
    def labels(self) -> Tensor:
        """``(N,)`` int64 labels of the target type, -1 where unknown."""
        label = self.g.nodes[self.target].data.get("label")
        if label is None:
            return torch.full((self.g.num_nodes(self.target),), -1, dtype=torch.int64, device=self.g.device)
        return label  # type: ignore[no-any-return]

    def split(self, name: str) -> Tensor:
        """Return the target nodes of a split.

        Parameters
        ----------
        name : str
            ``train``, ``val`` or ``test``.

        Returns
        -------
        Tensor
            ``(n,)`` int64 node numbers in ascending order.
        """
        if name not in SPLITS:
            raise ConfigError(f"MultimodalGraph.split name: {unknown_name('split', name, SPLITS)}")
        mask = self.g.nodes[self.target].data.get(f"{name}_mask")
        if mask is None:
            return torch.empty(0, dtype=torch.int64, device=self.g.device)
        return mask.nonzero(as_tuple=True)[0]  # type: ignore[no-any-return]

    @property
    def train_idx(self) -> Tensor:
        """``(n,)`` int64 numbers of the training nodes."""
        return self.split("train")

    @property
    def val_idx(self) -> Tensor:
        """``(n,)`` int64 numbers of the validation nodes."""
        return self.split("val")

    @property
    def test_idx(self) -> Tensor:
        """``(n,)`` int64 numbers of the test nodes."""
        return self.split("test")

    def num_nodes(self, ntype: str) -> int:
        """Return the number of nodes of a type."""
        self.schema.check_ntype(ntype)
        return int(self.g.num_nodes(ntype))

    def features(self, ntype: str) -> dict[str, Tensor]:
        """Return ``{modality: (N, width)}`` for the modalities that the type has, in schema order."""
        names = self.schema.widths(ntype)
        data = self.g.nodes[ntype].data
        return {modality: data[modality] for modality in names}

    def present(self, ntype: str) -> Tensor:
        """Return ``(N, M)`` bool: which node has which modality."""
        self.schema.check_ntype(ntype)
        return present_mask(self.g.nodes[ntype].data, self.schema, ntype, self.num_nodes(ntype), self.g.device)

    def drop_modalities(self, names: Iterable[str]) -> MultimodalGraph:
        """Return a graph without some modalities; the features that stay are shared, not copied.

        Parameters
        ----------
        names : iterable of str
            Modalities to leave out. A type that loses its last one gets ``structure``.

        Raises
        ------
        SchemaError
            If a name is unknown.
        """
        dropped = list(names)
        for name in dropped:
            if name not in self.schema.modality_names:
                known = unknown_name("modality", name, self.schema.modality_names)
                raise SchemaError(f"MultimodalGraph.drop_modalities names: {known}")
        g = self.g.local_var()
        for ntype in self.schema.ntypes:
            for name in dropped:
                if name in self.schema.modalities[ntype]:
                    g.nodes[ntype].data.pop(name)
                    g.nodes[ntype].data.pop(name + PRESENT_SUFFIX, None)
        schema = replace(
            self.schema,
            modalities={
                ntype: {name: spec for name, spec in specs.items() if name not in dropped}
                for ntype, specs in self.schema.modalities.items()
            },
            modality_names=tuple(name for name in self.schema.modality_names if name not in dropped),
        )
        return self._like(g, schema)

    def to(self, device: torch.device | str) -> MultimodalGraph:
        """Return the graph with its frames on another device (DGL must support it; hgmm's kernels do not need it)."""
        return self._like(self.g.to(device), self.schema)

    def with_triples(self, triples: TripleSet, *, source: DataSource | None = None) -> MultimodalGraph:
        """Return a knowledge graph with other triples of the same entities; features are shared, not copied.

        Parameters
        ----------
        triples : TripleSet
            The triples; their training part becomes the edges.
        source : DataSource, optional
            Where the result comes from. Default: as this graph.

        Raises
        ------
        SchemaError
            If this is no knowledge graph, or the vocabularies are not those of the graph.

        Notes
        -----
        What an entity without features got from its degrees is computed anew.
        """
        if self.triples is None:
            raise SchemaError(
                f"MultimodalGraph.with_triples: graph {self.name!r} has no triples; take a knowledge graph"
            )
        if triples.entity_vocab != self.triples.entity_vocab or triples.relation_vocab != self.triples.relation_vocab:
            raise SchemaError(
                f"MultimodalGraph.with_triples triples: the vocabularies must be those of graph {self.name!r} "
                f"({self.triples.num_entities} entities, {self.triples.num_relations} relations), got others with "
                f"{triples.num_entities} and {triples.num_relations}"
            )
        g = _triple_graph(triples)
        g.ndata.update(self.g.ndata)
        renew_structure(g, self.schema, self.node_ids)
        return self._like(g, self.schema, triples=triples, source=source)

    def _like(
        self, g: Any, schema: GraphSchema, *, triples: TripleSet | None = None, source: DataSource | None = None
    ) -> MultimodalGraph:
        return MultimodalGraph(
            g,
            schema,
            node_ids=self.node_ids,
            node_names=self.node_names,
            source=source or self.source,
            transforms=self.transforms,
            triples=triples or self.triples,
            name=self.name,
        )


def present_mask(
    data: Mapping[str, Tensor], schema: GraphSchema, ntype: str, num_nodes: int, device: torch.device | str
) -> Tensor:
    """Return ``(N, M)`` bool from a frame of features and masks; works on a graph's frame and on a block's.

    Parameters
    ----------
    data : mapping of str to Tensor
        ``g.nodes[ntype].data`` or ``block.srcnodes[ntype].data``.
    schema : GraphSchema
        Gives the modality axis.
    ntype : str
        The node type.
    num_nodes : int
        Rows of the frame.
    device : torch.device or str
        Where the mask shall be.
    """
    present = torch.zeros(num_nodes, schema.num_modalities, dtype=torch.bool, device=device)
    for column, modality in enumerate(schema.modality_names):
        if modality in schema.modalities[ntype]:
            mask = data.get(modality + PRESENT_SUFFIX)
            present[:, column] = True if mask is None else mask
    return present


def _triple_graph(triples: TripleSet) -> Any:
    from hgmm.dgl_compat import dgl

    head, relation, tail = triples.train.unbind(1)
    g = dgl.heterograph({TRIPLE_ETYPE: (head, tail)}, num_nodes_dict={"entity": triples.num_entities})
    g.edata["relation"] = relation
    return g


def _with_structure(g: Any, schema: GraphSchema, node_ids: Mapping[str, Sequence[str]]) -> tuple[Any, GraphSchema]:
    bare = [ntype for ntype in schema.ntypes if not schema.modalities[ntype]]
    g = g.local_var()
    if not bare:
        return g, schema
    modalities = {ntype: dict(specs) for ntype, specs in schema.modalities.items()}
    for ntype in bare:
        values = structure_features(g, ntype, node_ids[ntype]).to(g.device)
        g.nodes[ntype].data[STRUCTURE] = values
        modalities[ntype] = {STRUCTURE: ModalitySpec("structure", int(values.shape[1]), STRUCTURE_SOURCE)}
    names = schema.modality_names
    if STRUCTURE not in names:
        names = (*names, STRUCTURE)
    return g, replace(schema, modalities=modalities, modality_names=names)
