"""GraphMNL: node classification from branches that each see one source of evidence."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from hgmm.errors import ConfigError, SchemaError, unknown_name
from hgmm.graph.multimodal import MultimodalGraph
from hgmm.graph.schema import STRUCTURE, GraphSchema
from hgmm.models._inputs import layer_graphs, read_frames, read_inputs
from hgmm.nn import FAMILIES, FUSIONS, BranchLibrary, fuse_branches
from hgmm.nn.functional import destination_types
from hgmm.registry import MODELS
from hgmm.typing import NodeOutput

__all__ = ["GraphMNL"]

OUT_DEGREES_DATA = "_out_degrees"


@MODELS.register("graph-mnl")
class GraphMNL(nn.Module):
    """Classify nodes from each modality alone, from the structure alone, and from each modality along the edges.

    `hgmm.nn.BranchLibrary` and the fusion of its branches' logits. What makes branches learn from each other, negative
    learning, is a matter of the loss: `hgmm.training.NegativeLearningTask`.

    Parameters
    ----------
    schema : GraphSchema
        Types, relations, modalities, target and classes. A graph may lack some of the types and relations.
    branches : sequence of str, optional
        Families ``raw``, ``structure``, ``propagated``, or single branches such as ``propagated:text``.
    backbone : str, optional
        Graph layers: ``gcn``, ``sage``, ``gat`` or ``hgnn-ima``.
    hidden_size, num_layers, num_heads : int, optional
        F, the number of graph layers L, and the heads of ``gat`` and ``hgnn-ima``.
    dropout : float, optional
        On the results of encoders and layers.
    input_norm : str, optional
        ``none``, ``batch`` or ``layer`` for features.
    structure : str, optional
        What the structure branch reads: ``features``, or ``ids``, learned vectors of the nodes seen in training.
    structure_probes : int, optional
        Columns from which return probabilities are estimated; 0 computes them exactly, in time N / 64 times as long.
    id_table_size : int, optional
        Rows of the table behind ``ids``.
    fusion : str, optional
        ``mean`` of the available branches, or by ``reliability`` (`hgmm.nn.label_free_reliability`).
    branch_weights : mapping of str to float, optional
        Factors of single branches in the fusion, at least 0; 1 for those not named.

    Attributes
    ----------
    schema : GraphSchema
        As given.
    branch_names : tuple of str
        The P branches that are on, in order.
    tasks : tuple of str
        What the model can be trained for.
    settings : mapping of str to Any
        How it is trained unless told otherwise, by configuration key: negative learning is on.

    Raises
    ------
    ConfigError
        An option is unknown or out of range, or no node can have a branch that is named.
    SchemaError
        The schema has no target or no classes.

    References
    ----------
    GraphMNL, arXiv 2606.12863: a reconstruction from its abstract, see `hgmm.nn.BranchLibrary`. The mean of logits is
    the fusion of Multimodal Negative Learning, NeurIPS 2025, arXiv 2510.20877; the weights by reliability are ours.

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
    >>> g.nodes["item"].data["text"] = torch.randn(3, 4)
    >>> model = GraphMNL(schema, hidden_size=8)
    >>> out = model(MultimodalGraph(g, schema))
    >>> out.branch_names, out.branch_logits.shape
    (('raw:text', 'structure', 'propagated:text'), torch.Size([3, 3, 2]))
    """

    tasks = ("node-classification",)
    settings = MappingProxyType(
        {
            "train.epochs": 200,
            "train.patience": 100,
            "train.patience_monitor": None,
            "train.learning_rate": 5e-3,
            "train.weight_decay": 1e-2,
            "train.scheduler": "one-cycle",
            "train.scheduler_steps": 0,
            "train.scheduler_warmup": 0.1,
            "train.gradient_clip": 1.0,
            "train.branch_weight": 1.0,
            "train.missing_attention_weight": 0.0,
            "train.label_smoothing": 0.0,
            "negative.weight": 0.3,
        }
    )
    branch_weights: Tensor

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
        fusion: str = "mean",
        branch_weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        library: dict[str, Any] = {
            "branches": branches if isinstance(branches, str) else list(branches),
            "backbone": backbone,
            "hidden_size": hidden_size,
            "num_layers": num_layers,
            "num_heads": num_heads,
            "dropout": dropout,
            "input_norm": input_norm,
            "structure": structure,
            "structure_probes": structure_probes,
            "id_table_size": id_table_size,
        }
        self.schema = schema
        self.target = str(schema.target)
        self.backbone = backbone
        self.num_layers = num_layers
        self.fusion = fusion
        self.branch_library = BranchLibrary(schema, **library)
        # With the option that its values depend on, so that no model takes those of another for its own.
        self._structure_data = (
            f"_structure_ids_{id_table_size}" if structure == "ids" else f"_structure_{structure_probes}"
        )
        self.branch_names = self.branch_library.names
        if fusion not in FUSIONS:
            raise ConfigError(f"GraphMNL, fusion: {unknown_name('fusion', fusion, FUSIONS)}")
        weights = _checked_weights(self.branch_names, branch_weights)
        self.register_buffer("branch_weights", torch.tensor(weights), persistent=False)
        given = None if branch_weights is None else dict(branch_weights)
        self._args = {**library, "fusion": fusion, "branch_weights": given}

    def constructor_args(self) -> dict[str, Any]:
        """Return what rebuilds the model: ``GraphMNL(model.schema, **model.constructor_args())``; JSON data."""
        return copy.deepcopy(self._args)

    def prepare(self, graph: MultimodalGraph) -> MultimodalGraph:
        """Return the graph with what the model reads of its structure in its frames, so that blocks carry it along.

        `hgmm.Trainer` and `hgmm.load_run` do this. A graph that is passed as a `MultimodalGraph` is prepared at each
        call of the model unless it was before.

        Parameters
        ----------
        graph : MultimodalGraph
            With all types and relations of the schema. Not changed.
        """
        g = graph.g.local_var()
        if STRUCTURE in self.branch_names:
            for ntype, values in self.branch_library.structure_inputs(g, graph.node_ids).items():
                g.nodes[ntype].data[self._structure_data] = values
        if self._reads_degrees:
            for ntype in g.ntypes:
                degrees = [g.out_degrees(etype=e) for e in self.schema.canonical_etypes if e[0] == ntype]
                nothing = torch.zeros(g.num_nodes(ntype), 0, device=g.device)
                g.nodes[ntype].data[OUT_DEGREES_DATA] = torch.stack(degrees, 1) if degrees else nothing
        # The content was checked when the graph was made, and what is added here fits by construction.
        prepared = copy.copy(graph)
        prepared.g = g
        return prepared

    @property
    def _reads_degrees(self) -> bool:
        return self.backbone == "gcn" and any(not name.startswith("raw:") for name in self.branch_names)

    def forward(self, graph: Any, nodes: Tensor | None = None) -> NodeOutput:
        """Classify nodes of the target type.

        Parameters
        ----------
        graph : MultimodalGraph, dgl.DGLGraph or sequence of blocks
            Features and presence masks are read from its frames as `hgmm.graph.MultimodalGraph` puts them there, and
            what `prepare` adds; of blocks, one a layer as ``dgl.dataloading.NeighborSampler`` makes them, from the
            first one's source nodes.
        nodes : Tensor, optional
            ``(n,)`` int64: the target nodes wanted. Default: all of the graph, or the last block's destination nodes.

        Returns
        -------
        NodeOutput
            ``available`` says which node has which branch. ``aux``: ``branch_weights`` (n, P), the share of each branch
            in the fused logits, and ``embedding`` (n, P F), the branches' states times their shares, side by side: what
            the fused logits are an affine function of among nodes with equal shares.

        Raises
        ------
        SchemaError
            The graph has an unknown type or relation, lacks the target type or a declared feature, or is not prepared.
        ConfigError
            The number of blocks is not the number of layers.
        """
        where, device = "GraphMNL", self.branch_library.heads.weight.device
        graphs = layer_graphs(where, self._prepared(graph), self.num_layers)
        features, present = read_inputs(where, graphs[0], self.schema, device)
        updated = destination_types(graphs[-1])
        if self.target not in updated:
            raise SchemaError(
                f"{where}, graph: the target node type {self.target!r} is missing, got {sorted(updated)}; "
                "pass a graph that has it"
            )
        structure = (
            read_frames(where, graphs[0], self._structure_data, device) if STRUCTURE in self.branch_names else None
        )
        blocks = self._reads_degrees and graphs[0].is_block
        degrees = read_frames(where, graphs[0], OUT_DEGREES_DATA, device) if blocks else None
        out = self.branch_library(graphs, features, present, structure=structure, out_degrees=degrees)
        if nodes is not None:
            nodes = nodes.to(device)
            out = type(out)(*(x[nodes] for x in out))
        weights = self.branch_weights.to(out.logits)
        fused, shares = fuse_branches(out.logits, out.available, fusion=self.fusion, weights=weights)
        embedding = (out.states * shares.unsqueeze(-1)).flatten(1)
        return NodeOutput(
            logits=fused,
            branch_logits=out.logits,
            branch_names=self.branch_names,
            available=out.available,
            aux={"branch_weights": shares, "embedding": embedding},
        )

    def _prepared(self, graph: Any) -> Any:
        if not isinstance(graph, MultimodalGraph):
            return graph
        frame = graph.g.nodes[graph.target].data
        ready = STRUCTURE not in self.branch_names or self._structure_data in frame
        return graph if ready else self.prepare(graph)


def _checked_weights(names: Sequence[str], given: Mapping[str, float] | None) -> list[float]:
    where, weights = "GraphMNL, branch_weights", dict.fromkeys(names, 1.0)
    if given is not None and not isinstance(given, Mapping):
        raise ConfigError(f"{where}: expected a mapping from branch to number, got {given!r}; name the branches")
    for name, value in (given or {}).items():
        if name not in weights:
            raise ConfigError(f"{where}: {unknown_name('branch', name, names)}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not (value >= 0 and math.isfinite(value)):
            raise ConfigError(f"{where}[{name!r}]: must be a finite number of at least 0, got {value!r}")
        weights[name] = float(value)
    if not any(weights.values()):
        raise ConfigError(f"{where}: at least one branch must count, got 0 for all of {', '.join(names)}")
    return list(weights.values())
