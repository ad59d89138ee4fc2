"""A graph as a folder: ``schema.json``, ``tensors.safetensors`` and ``names.parquet``; no pickle."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from hgmm.errors import DataError
from hgmm.files import sync_folder, write_atomically
from hgmm.graph.multimodal import DataSource, MultimodalGraph
from hgmm.graph.schema import GraphSchema
from hgmm.triples import TripleSet
from hgmm.typing import CanonicalEtype

__all__ = ["SCHEMA_FILE", "load_graph", "save_graph"]

SCHEMA_FILE = "schema.json"
TENSOR_FILE = "tensors.safetensors"
NAME_FILE = "names.parquet"
FORMAT = "hgmm-graph"
VERSION = 1

# What wrong content raises, a SchemaError and its like among the ValueErrors.
DAMAGE = (
    OSError,
    SafetensorError,
    pa.ArrowException,
    AttributeError,
    KeyError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
)


def save_graph(graph: MultimodalGraph, path: str | os.PathLike[str]) -> Path:
    """Write a graph into a folder of its own.

    Parameters
    ----------
    graph : MultimodalGraph
        Everything in its frames, its ids, names, transforms, source and triples are kept.
    path : path
        The folder. It must not exist, or be empty, or hold nothing but a graph that was saved before, which is
        replaced.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    DataError
        If there is something else at `path`, or it cannot be written.

    Notes
    -----
    The files are written into a temporary folder beside it, flushed to disk and renamed: a killed process leaves no
    half-written graph behind.
    """
    # A link is followed, so that its target is replaced and not the link.
    folder = Path(path).resolve()
    if folder.exists() and not _replaceable(folder):
        raise DataError(f"save_graph path: {folder} holds something other than a saved graph; choose another folder")
    try:
        _save(graph, folder)
    except (OSError, SafetensorError) as error:
        raise DataError(f"save_graph path: {folder} cannot be written ({error}); choose another folder") from error
    return Path(path)


def _save(graph: MultimodalGraph, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = folder.with_name(f".{folder.name}.{secrets.token_hex(8)}.new")
    new.mkdir()
    try:
        tensors, layout = _tensors(graph)
        write_atomically(new / TENSOR_FILE, lambda file: save_file(tensors, file))
        write_atomically(new / NAME_FILE, lambda file: pa.parquet.write_table(_names(graph), file))
        text = json.dumps(_description(graph) | layout, ensure_ascii=False, indent=1, allow_nan=False)
        write_atomically(new / SCHEMA_FILE, lambda file: file.write_text(text, encoding="utf-8"))
        sync_folder(new)
        _put_in_place(new, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _put_in_place(new: Path, folder: Path) -> None:
    """Rename `new` to `folder`; what stood there is removed afterwards, or comes back if the renaming fails."""
    old = new.with_suffix(".old")
    replaced = folder.exists()
    if replaced:
        folder.rename(old)
    try:
        new.rename(folder)
    except OSError:
        if replaced:
            old.rename(folder)
        raise
    sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _replaceable(folder: Path) -> bool:
    """Say whether nothing is lost with the folder: it is empty, or a saved graph without files of anybody else."""
    if not folder.is_dir():
        return False
    names = {entry.name for entry in folder.iterdir()}
    if not names:
        return True
    try:
        return names <= {SCHEMA_FILE, TENSOR_FILE, NAME_FILE} and _read_description(folder)["format"] == FORMAT
    except DataError:
        return False


def _description(graph: MultimodalGraph) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "version": VERSION,
        "name": graph.name,
        "schema": graph.schema.to_dict(),
        "num_nodes": {ntype: graph.g.num_nodes(ntype) for ntype in graph.schema.ntypes},
        "source": graph.source.to_dict(),
        "transforms": graph.transforms,
    }


def _tensors(graph: MultimodalGraph) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return all tensors under short keys, and which frame entry each one is."""
    tensors: dict[str, Tensor] = {}
    nodes = [[t, key, graph.g.nodes[t].data[key]] for t in graph.schema.ntypes for key in graph.g.nodes[t].data]
    edges = [
        [list(t), key, graph.g.edges[t].data[key]]
        for t in graph.schema.canonical_etypes
        for key in graph.g.edges[t].data
    ]
    for prefix, entries in (("node", nodes), ("edge", edges)):
        for number, entry in enumerate(entries):
            tensors[f"{prefix}.{number}"] = entry.pop()
    for number, etype in enumerate(graph.schema.canonical_etypes):
        tensors[f"src.{number}"], tensors[f"dst.{number}"] = graph.g.edges(order="eid", etype=etype)
    if graph.triples is not None:
        for split in ("train", "val", "test"):
            tensors[f"triples.{split}"] = getattr(graph.triples, split)
    # safetensors refuses tensors that share memory, and a frame may hold views of one another.
    stored = {key: value.detach().cpu().clone(memory_format=torch.contiguous_format) for key, value in tensors.items()}
    return stored, {"node_data": nodes, "edge_data": edges}


def _names(graph: MultimodalGraph) -> pa.Table:
    lists = [("id", ntype, names) for ntype, names in graph.node_ids.items()]
    lists += [("name", ntype, names) for ntype, names in graph.node_names.items()]
    if graph.triples is not None:
        lists += [
            ("entity", "", list(graph.triples.entity_vocab)),
            ("relation", "", list(graph.triples.relation_vocab)),
        ]
    columns: dict[str, list[str]] = {"what": [], "ntype": [], "text": []}
    for what, ntype, names in lists:
        columns["what"] += [what] * len(names)
        columns["ntype"] += [ntype] * len(names)
        columns["text"] += names
    schema = pa.schema([(name, pa.string()) for name in columns])
    return pa.table(columns, schema=schema)


def load_graph(path: str | os.PathLike[str]) -> MultimodalGraph:
    """Read a graph that `save_graph` wrote.

    Parameters
    ----------
    path : path
        The folder.

    Returns
    -------
    MultimodalGraph

    Raises
    ------
    DataError
        If it is no such folder, of a newer format, incomplete or damaged.
    """
    from hgmm.dgl_compat import dgl

    folder = Path(path)
    described = _read_description(folder)
    try:
        tensors = load_file(folder / TENSOR_FILE)
        names = pa.parquet.read_table(folder / NAME_FILE).to_pandas()
        lists = {key: part["text"].tolist() for key, part in names.groupby(["what", "ntype"], sort=False)}
        return _rebuild(described, tensors, lists)
    except (*DAMAGE, dgl.DGLError) as error:
        raise DataError(f"{folder}: the saved graph is incomplete or damaged ({error}); import it again") from error


def _read_description(folder: Path) -> dict[str, Any]:
    file = folder / SCHEMA_FILE
    try:
        described = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{file}: {error.strerror}; expected the folder of a saved graph") from error
    except ValueError as error:
        raise DataError(f"{file}: it is not JSON ({error}); import the graph again") from error
    if not isinstance(described, dict) or described.get("format") != FORMAT:
        found = described.get("format") if isinstance(described, dict) else described
        raise DataError(f"{file}: its format must be {FORMAT!r}, got {found!r}; expected the folder of a saved graph")
    if described.get("version") != VERSION:
        found = described.get("version")
        raise DataError(f"{file}: this hgmm reads version {VERSION}, got {found!r}; import the graph again")
    return described


def _rebuild(
    described: Mapping[str, Any], tensors: Mapping[str, Tensor], lists: Mapping[tuple[str, str], list[str]]
) -> MultimodalGraph:
    from hgmm.dgl_compat import dgl

    schema = GraphSchema.from_dict(described["schema"])
    edges: dict[CanonicalEtype, tuple[Tensor, Tensor]] = {
        etype: (tensors[f"src.{number}"], tensors[f"dst.{number}"])
        for number, etype in enumerate(schema.canonical_etypes)
    }
    g = dgl.heterograph(edges, num_nodes_dict=described["num_nodes"])
    for number, (ntype, key) in enumerate(described["node_data"]):
        g.nodes[ntype].data[key] = tensors[f"node.{number}"]
    for number, ((source, relation, destination), key) in enumerate(described["edge_data"]):
        g.edges[source, relation, destination].data[key] = tensors[f"edge.{number}"]
    triples = None
    if "triples.train" in tensors:
        train, val, test = (tensors[f"triples.{split}"] for split in ("train", "val", "test"))
        entities, relations = tuple(lists.get(("entity", ""), ())), tuple(lists.get(("relation", ""), ()))
        triples = TripleSet(train, val, test, entities, relations)
    source = described["source"]
    return MultimodalGraph(
        g,
        schema,
        node_ids={ntype: lists.get(("id", ntype), []) for ntype in schema.ntypes},
        node_names={ntype: lists["name", ntype] for ntype in schema.ntypes if ("name", ntype) in lists},
        source=DataSource(
            source["source"],
            tuple(source["files"]),
            source["sha256"],
            tuple(source["absent"]),
            source["note"],
            # Folders of the first development versions do not know it.
            tuple(source.get("corrupted", ())),
        ),
        transforms=described["transforms"],
        triples=triples,
        name=described["name"],
    )
