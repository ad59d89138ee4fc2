"""One way from tensors to a `MultimodalGraph`, shared by the builder and the conversions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hgmm.errors import Problem, SchemaError, raise_problems, unknown_name
from hgmm.graph.multimodal import SPLITS, DataSource, MultimodalGraph
from hgmm.graph.schema import KINDS, PRESENT_SUFFIX, GraphSchema, ModalitySpec
from hgmm.typing import CanonicalEtype

__all__ = ["default_specs", "from_tensors"]


def default_specs(
    features: Mapping[str, Mapping[str, Tensor]], kinds: Mapping[str, str] | None = None
) -> dict[str, dict[str, ModalitySpec]]:
    """Return specs for ``{ntype: {modality: (N, width)}}``; the kind is the name if that is one, else ``other``."""
    return {
        ntype: {
            name: ModalitySpec((kinds or {}).get(name, name if name in KINDS else "other"), int(values.shape[-1]))
            for name, values in modalities.items()
        }
        for ntype, modalities in features.items()
    }


def from_tensors(
    num_nodes: Mapping[str, int],
    edges: Mapping[CanonicalEtype, tuple[Tensor, Tensor]],
    *,
    features: Mapping[str, Mapping[str, Tensor]] | None = None,
    present: Mapping[str, Mapping[str, Tensor]] | None = None,
    specs: Mapping[str, Mapping[str, ModalitySpec]] | None = None,
    kinds: Mapping[str, str] | None = None,
    target: str | None = None,
    labels: Tensor | None = None,
    classes: Sequence[str] = (),
    splits: Mapping[str, Tensor] | None = None,
    node_ids: Mapping[str, Sequence[str]] | None = None,
    node_names: Mapping[str, Sequence[str]] | None = None,
    source: DataSource | None = None,
    transforms: Mapping[str, Any] | None = None,
    name: str = "graph",
) -> MultimodalGraph:
    """Build a graph from index and feature tensors.

    Parameters
    ----------
    num_nodes : mapping of str to int
        Node types, in the schema's order, and their sizes.
    edges : mapping of (str, str, str) to (Tensor, Tensor)
        ``(E,)`` integer sources and destinations by relation.
    features : mapping of str to mapping of str to Tensor, optional
        ``(N, width)`` floating point by node type and modality.
    present : mapping of str to mapping of str to Tensor, optional
        ``(N,)`` bool where not every node has the modality; features of absent rows are set to zero.
    specs : mapping, optional
        Specs by node type and modality. Default: made from `features` and `kinds`.
    kinds : mapping of str to str, optional
        Kind by modality. Default: its name if that is a kind, else ``other``.
    target : str, optional
        The node type that carries labels.
    labels : Tensor, optional
        ``(N,)`` int64 class numbers, -1 = none.
    classes : sequence of str, optional
        Class names. Default: the numbers from 0 to the largest label.
    splits : mapping of str to Tensor, optional
        ``train``, ``val``, ``test``: a ``(N,)`` bool mask or ``(n,)`` node numbers.
    node_ids, node_names, source, transforms, name
        As in `MultimodalGraph`.

    Raises
    ------
    SchemaError
        If the parts do not fit together; all problems are listed.
    """
    from hgmm.dgl_compat import dgl

    problems = [*_end_problems(num_nodes, edges), *_row_problems(num_nodes, features or {}, present or {})]
    if target is None and (labels is not None or splits):
        problems.append(Problem("no target", "target", "labels and splits need a target node type; name it"))
    if target is not None and target in num_nodes:
        problems += _target_problems(num_nodes[target], labels, splits or {})
    raise_problems(problems, where="from_tensors", error=SchemaError)
    # DGL takes one integer type for all relations, and stops at a mixture.
    whole = {etype: (src.long(), dst.long()) for etype, (src, dst) in edges.items()}
    g = dgl.heterograph(whole, num_nodes_dict=dict(num_nodes))
    for ntype, modalities in (features or {}).items():
        for modality, values in modalities.items():
            mask = (present or {}).get(ntype, {}).get(modality)
            if mask is not None and not bool(mask.all()):
                g.nodes[ntype].data[modality + PRESENT_SUFFIX] = mask
                values = values.masked_fill(~mask.unsqueeze(-1), 0.0)
            g.nodes[ntype].data[modality] = values
    if target is not None and target in num_nodes:
        _put_labels(g.nodes[target].data, num_nodes[target], labels, splits or {})
    if labels is not None and not classes:
        classes = tuple(map(str, range(int(labels.max()) + 1 if labels.numel() else 0)))
    specs = specs or default_specs(features or {}, kinds)
    schema = GraphSchema(tuple(num_nodes), tuple(edges), specs, target=target, classes=tuple(classes))
    return MultimodalGraph(
        g, schema, node_ids=node_ids, node_names=node_names, source=source, transforms=transforms, name=name
    )


def _end_problems(
    num_nodes: Mapping[str, int], edges: Mapping[CanonicalEtype, tuple[Tensor, Tensor]]
) -> Iterator[Problem]:
    if not edges:
        yield Problem("no edges", "edges", "a graph needs at least one relation; it may be without edges")
    for etype, (src, dst) in edges.items():
        where = f"edges {etype!r}"
        if src.shape != dst.shape or src.ndim != 1:
            text = f"sources and destinations must be (E,), got {tuple(src.shape)} and {tuple(dst.shape)}"
            yield Problem("wrong shape", where, text)
        for ends in (src, dst):
            if ends.is_floating_point() or ends.dtype == torch.bool:
                yield Problem("wrong dtype", where, f"node numbers must be whole, got {ends.dtype}")
        for ntype, ends in ((etype[0], src), (etype[2], dst)):
            if ntype not in num_nodes:
                yield Problem("unknown node type", where, unknown_name("node type", ntype, num_nodes))
            elif ends.numel() and not 0 <= int(ends.min()) <= int(ends.max()) < num_nodes[ntype]:
                text = f"node numbers go from {int(ends.min())} to {int(ends.max())}, {ntype!r} has {num_nodes[ntype]}"
                yield Problem("node out of range", where, text)


def _row_problems(
    num_nodes: Mapping[str, int],
    features: Mapping[str, Mapping[str, Tensor]],
    present: Mapping[str, Mapping[str, Tensor]],
) -> Iterator[Problem]:
    for what, given in (("features", features), ("present", present)):
        for ntype, columns in given.items():
            if ntype not in num_nodes:
                yield Problem("unknown node type", what, unknown_name("node type", ntype, num_nodes))
                continue
            for modality, values in columns.items():
                where = f"{what} {ntype}.{modality}"
                if values.ndim == 0 or len(values) != num_nodes[ntype]:
                    text = f"the shape is {tuple(values.shape)} for {num_nodes[ntype]} nodes"
                    yield Problem("wrong length", where, text)
                if what == "present" and modality not in features.get(ntype, {}):
                    known = unknown_name("modality", modality, features.get(ntype, {}))
                    yield Problem("unknown modality", where, known)
                if what == "present" and values.dtype != torch.bool:
                    yield Problem("wrong mask", where, f"must be bool, got {values.dtype}")


def _target_problems(num_nodes: int, labels: Tensor | None, splits: Mapping[str, Tensor]) -> Iterator[Problem]:
    if labels is not None and labels.shape != (num_nodes,):
        yield Problem("wrong length", "labels", f"the shape is {tuple(labels.shape)} for {num_nodes} nodes")
    if labels is not None and labels.dtype != torch.int64:
        yield Problem("wrong dtype", "labels", f"must be int64, got {labels.dtype}")
    for split, chosen in splits.items():
        where = f"split {split!r}"
        if split not in SPLITS:
            yield Problem("unknown split", "splits", unknown_name("split", split, SPLITS))
        elif chosen.dtype == torch.bool:
            if chosen.shape != (num_nodes,):
                yield Problem("wrong length", where, f"the shape is {tuple(chosen.shape)} for {num_nodes} nodes")
        elif chosen.numel() and chosen.is_floating_point():
            yield Problem("wrong dtype", where, f"must be bool or whole numbers, got {chosen.dtype}")
        elif chosen.numel() and not 0 <= int(chosen.min()) <= int(chosen.max()) < num_nodes:
            text = f"node numbers go from {int(chosen.min())} to {int(chosen.max())}, there are {num_nodes}"
            yield Problem("node out of range", where, text)


def _put_labels(data: Any, num_nodes: int, labels: Tensor | None, splits: Mapping[str, Tensor]) -> None:
    if labels is not None:
        data["label"] = labels
    for split, chosen in splits.items():
        mask = chosen
        if chosen.dtype != torch.bool:
            mask = torch.zeros(num_nodes, dtype=torch.bool)
            mask[chosen.long()] = True
        data[f"{split}_mask"] = mask
