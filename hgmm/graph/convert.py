"""From and to the graphs of DGL, SciPy and PyTorch Geometric; NetworkX has a file of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from hgmm.errors import ConfigError, SchemaError
from hgmm.graph.assemble import default_specs, from_tensors
from hgmm.graph.convert_networkx import from_networkx, to_networkx
from hgmm.graph.multimodal import SPLITS, DataSource, MultimodalGraph
from hgmm.graph.schema import PRESENT_SUFFIX, RESERVED, GraphSchema
from hgmm.typing import CanonicalEtype

__all__ = [
    "from_dgl",
    "from_networkx",
    "from_pyg",
    "from_scipy",
    "to_dgl",
    "to_networkx",
    "to_pyg",
    "to_scipy",
]


def to_dgl(graph: MultimodalGraph) -> Any:
    """Return the DGL graph with features, masks, labels and splits in its frames.

    Parameters
    ----------
    graph : MultimodalGraph
        The graph.

    Returns
    -------
    dgl.DGLGraph
        Shares the tensors; frames can be changed without changing `graph`'s.
    """
    return graph.g.local_var()


def from_dgl(
    g: Any,
    *,
    target: str | None = None,
    classes: Sequence[str] = (),
    kinds: Mapping[str, str] | None = None,
    node_ids: Mapping[str, Sequence[str]] | None = None,
    node_names: Mapping[str, Sequence[str]] | None = None,
    source: DataSource | None = None,
    name: str = "graph",
) -> MultimodalGraph:
    """Take a DGL graph whose node frames hold features, ``label`` and the split masks.

    Parameters
    ----------
    g : dgl.DGLGraph
        Homogeneous or heterogeneous. Every ``(N, width)`` floating point entry of a node frame is a modality, masked by
        ``<name>_present`` if there is one; DGL's usual ``feat`` becomes the modality ``feature``. Other entries stay.
    target : str, optional
        The node type that carries labels. Default: the only one with ``label``.
    classes : sequence of str, optional
        Class names. Default: the numbers from 0 to the largest label.
    kinds : mapping of str to str, optional
        Kind by modality. Default: its name if that is a kind, else ``other``.
    node_ids, node_names, source, name
        As in `MultimodalGraph`.

    Raises
    ------
    SchemaError
        If the frames break a rule; all problems are listed.
    """
    g = g.local_var()
    for ntype in g.ntypes:
        data = g.nodes[ntype].data
        if "feat" in data and "feature" not in data:
            data["feature"] = data.pop("feat")
    features = {ntype: _feature_columns(g.nodes[ntype].data, g.num_nodes(ntype)) for ntype in g.ntypes}
    labelled = [ntype for ntype in g.ntypes if "label" in g.nodes[ntype].data]
    target = target or (labelled[0] if len(labelled) == 1 else None)
    if target in labelled and not classes and g.nodes[target].data["label"].numel():
        highest = g.nodes[target].data["label"].max().item()
        # Labels of another dtype are refused below.
        classes = tuple(map(str, range(highest + 1))) if isinstance(highest, int) else ()
    schema = GraphSchema(
        tuple(g.ntypes),
        tuple(g.canonical_etypes),
        default_specs(features, kinds),
        target=target,
        classes=tuple(classes),
    )
    return MultimodalGraph(g, schema, node_ids=node_ids, node_names=node_names, source=source, name=name)


def _feature_columns(data: Mapping[str, Any], num_nodes: int) -> dict[str, Tensor]:
    return {
        name: values
        for name, values in data.items()
        if isinstance(values, Tensor)
        and values.ndim == 2
        and len(values) == num_nodes
        and values.is_floating_point()
        and name not in RESERVED
        and not name.endswith(PRESENT_SUFFIX)
    }


def to_scipy(graph: MultimodalGraph) -> dict[CanonicalEtype, Any]:
    """Return each relation as a sparse matrix.

    Parameters
    ----------
    graph : MultimodalGraph
        The graph.

    Returns
    -------
    dict of (str, str, str) to scipy.sparse.coo_matrix
        ``(N_src, N_dst)`` with a 1 for each edge, in edge order; parallel edges are entries of their own.
    """
    matrices = {}
    for etype in graph.schema.canonical_etypes:
        src, dst = graph.g.edges(order="eid", etype=etype)
        shape = (graph.num_nodes(etype[0]), graph.num_nodes(etype[2]))
        ends = (src.cpu().numpy(), dst.cpu().numpy())
        matrices[etype] = scipy.sparse.coo_matrix((np.ones(src.numel(), dtype=np.float32), ends), shape=shape)
    return matrices


def from_scipy(
    matrices: Mapping[CanonicalEtype, Any],
    *,
    features: Mapping[str, Mapping[str, Any]] | None = None,
    present: Mapping[str, Mapping[str, Any]] | None = None,
    kinds: Mapping[str, str] | None = None,
    target: str | None = None,
    labels: Any = None,
    classes: Sequence[str] = (),
    splits: Mapping[str, Any] | None = None,
    node_ids: Mapping[str, Sequence[str]] | None = None,
    source: DataSource | None = None,
    name: str = "graph",
) -> MultimodalGraph:
    """Build a graph from adjacency matrices.

    Parameters
    ----------
    matrices : mapping of (str, str, str) to sparse matrix
        ``(N_src, N_dst)`` of any SciPy format; every entry other than 0 is an edge. A weight other than 1 is refused,
        because edges carry none.
    features : mapping of str to mapping of str to array or Tensor, optional
        ``(N, width)`` by node type and modality.
    present : mapping of str to mapping of str to array or Tensor, optional
        ``(N,)`` bool where not every node has the modality.
    labels : array or Tensor, optional
        ``(N,)`` class numbers of the target's nodes, -1 = none.
    splits : mapping of str to array or Tensor, optional
        ``train``, ``val``, ``test``: ``(N,)`` bool or ``(n,)`` node numbers.
    kinds, target, classes, node_ids, source, name
        As in `hgmm.graph.from_tensors`.

    Raises
    ------
    SchemaError
        If two matrices disagree about the number of nodes of a type, or the parts do not fit together.
    """
    num_nodes: dict[str, int] = {}
    edges = {}
    for etype, matrix in matrices.items():
        for ntype, count in ((etype[0], matrix.shape[0]), (etype[2], matrix.shape[1])):
            if num_nodes.setdefault(ntype, int(count)) != count:
                raise SchemaError(
                    f"from_scipy matrices: {etype!r} has {count} nodes of type {ntype!r}, an earlier matrix has "
                    f"{num_nodes[ntype]}; give all matrices the same size"
                )
        entries = scipy.sparse.coo_matrix(matrix)
        kept = entries.data != 0
        weights = np.unique(entries.data[kept])
        if (weights != 1).any():
            raise SchemaError(
                f"from_scipy matrices: {etype!r} has the weight {weights[weights != 1][0]}; edges carry no weight, "
                "set the entries to 1"
            )
        edges[etype] = (_index(entries.row[kept]), _index(entries.col[kept]))
    return from_tensors(
        num_nodes,
        edges,
        features=_tensors(features, torch.float32),
        present=_tensors(present, torch.bool),
        kinds=kinds,
        target=target,
        labels=None if labels is None else _whole(torch.as_tensor(labels)),
        classes=classes,
        splits={split: torch.as_tensor(chosen) for split, chosen in (splits or {}).items()},
        node_ids=node_ids,
        source=source,
        name=name,
    )


def _whole(labels: Tensor) -> Tensor:
    """Return integers of any size as int64; anything else stays what it is, to be refused."""
    return labels if labels.is_floating_point() or labels.dtype == torch.bool else labels.long()


def _index(numbers: Any) -> Tensor:
    return torch.from_numpy(np.asarray(numbers, dtype=np.int64))


def _tensors(given: Mapping[str, Mapping[str, Any]] | None, dtype: torch.dtype) -> dict[str, dict[str, Tensor]]:
    return {
        ntype: {name: torch.as_tensor(values).to(dtype) for name, values in columns.items()}
        for ntype, columns in (given or {}).items()
    }


def to_pyg(graph: MultimodalGraph) -> Any:
    """Return the graph as PyTorch Geometric's ``HeteroData``.

    Parameters
    ----------
    graph : MultimodalGraph
        The graph.

    Returns
    -------
    torch_geometric.data.HeteroData
        Features under their modality's name with ``<name>_present``, labels as ``y``, the split masks, external ids as
        ``ids``, edges as ``edge_index``; target, class names and kinds in the entry ``hgmm``.

    Raises
    ------
    ConfigError
        If torch_geometric is not installed.
    """
    data = _hetero_data()()
    for ntype in graph.schema.ntypes:
        data[ntype].num_nodes = graph.num_nodes(ntype)
        data[ntype].ids = list(graph.node_ids[ntype])
        for key, values in graph.g.nodes[ntype].data.items():
            data[ntype]["y" if key == "label" else key] = values
    for etype in graph.schema.canonical_etypes:
        data[etype].edge_index = torch.stack(graph.g.edges(order="eid", etype=etype))
        for key, values in graph.g.edges[etype].data.items():
            data[etype][key] = values
    kinds = {name: spec.kind for specs in graph.schema.modalities.values() for name, spec in specs.items()}
    data.hgmm = {"target": graph.schema.target, "classes": list(graph.schema.classes), "kinds": kinds}
    return data


def from_pyg(
    data: Any,
    *,
    target: str | None = None,
    classes: Sequence[str] = (),
    kinds: Mapping[str, str] | None = None,
    source: DataSource | None = None,
    name: str = "graph",
) -> MultimodalGraph:
    """Take PyTorch Geometric's ``HeteroData``.

    Parameters
    ----------
    data : torch_geometric.data.HeteroData
        Every ``(N, width)`` floating point tensor of a node store is a modality under its own name (``x`` too), masked
        by ``<name>_present`` if there is one; ``y`` holds labels, ``train_mask``, ``val_mask``, ``test_mask`` the
        splits, ``ids`` external ids.
    target, classes, kinds : optional
        Default: what `to_pyg` noted in ``data.hgmm``; else the only type with ``y``, the numbers of the labels, and the
        modality's name.
    source, name
        As in `MultimodalGraph`.

    Raises
    ------
    ConfigError
        If torch_geometric is not installed.
    SchemaError
        If `data` is no ``HeteroData`` or its parts do not fit together.
    """
    if not isinstance(data, _hetero_data()):
        raise SchemaError(
            f"from_pyg data: expected a HeteroData, got {type(data).__name__}; use Data.to_heterogeneous()"
        )
    noted: Mapping[str, Any] = getattr(data, "hgmm", {})
    stores = {ntype: dict(data[ntype].items()) for ntype in data.node_types}
    num_nodes = {ntype: int(data[ntype].num_nodes) for ntype in stores}
    labelled = [ntype for ntype, store in stores.items() if "y" in store]
    target = target or noted.get("target") or (labelled[0] if len(labelled) == 1 else None)
    aim = stores.get(target, {}) if target is not None else {}
    features = {ntype: _feature_columns(store, num_nodes[ntype]) for ntype, store in stores.items()}
    return from_tensors(
        num_nodes,
        {etype: (data[etype].edge_index[0], data[etype].edge_index[1]) for etype in data.edge_types},
        features=features,
        present={
            ntype: {
                modality: stores[ntype][modality + PRESENT_SUFFIX]
                for modality in columns
                if modality + PRESENT_SUFFIX in stores[ntype]
            }
            for ntype, columns in features.items()
        },
        kinds=kinds or noted.get("kinds"),
        target=target,
        labels=None if "y" not in aim else _whole(aim["y"]),
        classes=classes or noted.get("classes", ()),
        splits={split: aim[f"{split}_mask"] for split in SPLITS if f"{split}_mask" in aim},
        node_ids={ntype: store["ids"] for ntype, store in stores.items() if "ids" in store},
        source=source,
        name=name,
    )


def _hetero_data() -> Any:
    try:
        from torch_geometric.data import HeteroData
    except ImportError as error:
        raise ConfigError(
            "from_pyg, to_pyg: torch_geometric is needed and not installed; run: pip install 'hgmm[pyg]'"
        ) from error
    return HeteroData
