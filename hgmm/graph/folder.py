"""A user's folder: ``graph.yaml`` and the tables and matrices that it names."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from hgmm.errors import DataError, Problem, unknown_name
from hgmm.graph.builder import GraphBuilder
from hgmm.graph.multimodal import MultimodalGraph
from hgmm.syntax import syntax_error

__all__ = ["GRAPH_FILE", "read_folder"]

GRAPH_FILE = "graph.yaml"
KEYS = ("edges", "encoder", "name", "nodes", "target")
NODE_KEYS = ("id", "label", "modalities", "name", "split", "table")
EDGE_KEYS = ("dst", "reverse", "src", "table", "type")


def read_folder(
    path: str | os.PathLike[str],
    *,
    transforms: Mapping[str, Any] | None = None,
    classes: Sequence[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> MultimodalGraph:
    """Read the graph that a folder's ``graph.yaml`` describes.

    Parameters
    ----------
    path : path
        The folder. Paths in ``graph.yaml`` and in image columns start from it; they may lead out of it.
    transforms, classes : optional
        Of the graph that a model was trained on: applied instead of fitted anew.
    cache_dir : path, optional
        Where encoders keep vectors. Default: ``$XDG_CACHE_HOME/hgmm``.

    Returns
    -------
    MultimodalGraph
        Its source lists the files and their checksums.

    Raises
    ------
    DataError
        If there is no ``graph.yaml``, it is no YAML, or anything in the folder is wrong; all problems are listed.
    SchemaError
        If there are earlier transforms and a node type or modality is unknown to them.

    Examples
    --------
    A complete ``graph.yaml``::

        target: item
        nodes:
          item:
            table: item.csv
            id: id
            label: label
            split: {train: 0.6, val: 0.2, test: 0.2, seed: 0}      # or a column name
            modalities:
              numeric: {columns: [price, weight]}
              text: {column: title}
              image: {file: image.npy, ids: image_ids.txt}         # rows may be fewer than the nodes
          user: {table: user.parquet, id: id}
        edges:
          - {type: [user, buys, item], table: buys.csv, src: user, dst: item, reverse: bought_by}
    """
    folder = Path(path)
    problems: list[Problem] = []
    content = _read_yaml(folder, problems)
    problems += _unknown_keys(content, KEYS, GRAPH_FILE)
    for key in ("target", "name", "encoder"):
        if not isinstance(content.get(key, ""), str):
            problems.append(Problem("wrong value", f"{GRAPH_FILE} {key}", f"expected a word, got {content[key]!r}"))
            content = {other: value for other, value in content.items() if other != key}
    builder = GraphBuilder(
        content.get("target"),
        transforms=transforms,
        classes=classes,
        cache_dir=cache_dir,
        encoder=content.get("encoder", "builtin"),
        root=folder,
        name=content.get("name", folder.resolve().name),
    )
    _add_nodes(builder, content.get("nodes"), problems)
    _add_edges(builder, content.get("edges"), problems)
    return builder.build(problems=problems, where=os.fspath(folder / GRAPH_FILE), files=[GRAPH_FILE])


def _read_yaml(folder: Path, problems: list[Problem]) -> Mapping[str, Any]:
    file = folder / GRAPH_FILE
    if not file.is_file():
        raise DataError(f"{file}: there is no such file; a folder of your own data needs one that names its tables")
    try:
        text = file.read_text(encoding="utf-8")
        content = yaml.safe_load(text)
        problems += _repeated_keys(yaml.compose(text, Loader=yaml.SafeLoader))
    except (yaml.YAMLError, ValueError) as error:
        raise DataError(f"{file}, {syntax_error(error)}; the file is no valid YAML until that is repaired") from error
    except OSError as error:
        raise DataError(f"{file}: it cannot be read; {error.strerror}") from error
    if not isinstance(content, Mapping):
        raise DataError(f"{file}: expected the keys {', '.join(KEYS)}, got {content!r}")
    return content


def _repeated_keys(root: Any) -> list[Problem]:
    """Find keys that stand twice in one mapping: YAML forbids it, and PyYAML quietly takes the last."""
    problems: list[Problem] = []
    nodes, seen = [root], set()
    while nodes:
        node = nodes.pop()
        # Anchors make one node appear at many places.
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value]
            problems += [
                Problem("duplicate key", f"{GRAPH_FILE} line {key.start_mark.line + 1}", f"{key.value!r} stands twice")
                for number, (key, _) in enumerate(node.value)
                if key.value in keys[:number]
            ]
            nodes += [value for _, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            nodes += node.value
    return problems


def _unknown_keys(given: Mapping[Any, Any], known: Sequence[str], where: str) -> list[Problem]:
    return [Problem("unknown key", where, unknown_name("key", key, known)) for key in given if key not in known]


def _entry_problems(
    given: Any, known: Sequence[str], required: Sequence[str], words: Sequence[str], where: str
) -> list[Problem]:
    """Check one entry: a mapping with known keys, the required ones among them, and texts under `words`."""
    if not isinstance(given, Mapping):
        return [Problem("wrong value", where, f"expected a mapping with {', '.join(required)}; got {given!r}")]
    problems = _unknown_keys(given, known, where)
    problems += [Problem("missing key", where, f"{key!r} is missing") for key in required if key not in given]
    for key in words:
        if key in given and not isinstance(given[key], str):
            problems.append(Problem("wrong value", f"{where} {key}", f"expected a word, got {given[key]!r}"))
    return problems


def _add_nodes(builder: GraphBuilder, given: Any, problems: list[Problem]) -> None:
    where = f"{GRAPH_FILE} nodes"
    if not isinstance(given, Mapping):
        problems.append(Problem("wrong value", where, f"expected node types with their tables, got {given!r}"))
        return
    for ntype, entry in given.items():
        found = _entry_problems(entry, NODE_KEYS, ("table",), ("table", "id", "name"), f"{where}.{ntype}")
        found += _unquoted([ntype], where)
        problems += found
        if any(problem.kind != "unknown key" for problem in found):
            continue
        modalities = entry.get("modalities") or {}
        if not isinstance(modalities, Mapping):
            problems.append(
                Problem("wrong value", f"{where}.{ntype}.modalities", f"expected a mapping, got {modalities!r}")
            )
            modalities = {}
        problems += _unquoted(modalities, f"{where}.{ntype}.modalities")
        builder.add_nodes(
            ntype,
            entry["table"],
            id=entry.get("id"),
            name=entry.get("name"),
            label=entry.get("label"),
            split=entry.get("split"),
            modalities={name: source for name, source in modalities.items() if isinstance(name, str)},
        )


def _unquoted(names: Iterable[Any], where: str) -> list[Problem]:
    """Find names that YAML has turned into something else: ``no`` into False, ``1`` into a number."""
    return [
        Problem("wrong value", where, f"expected a word as name, got {name!r}; put it in quotes")
        for name in names
        if not isinstance(name, str)
    ]


def _add_edges(builder: GraphBuilder, given: Any, problems: list[Problem]) -> None:
    where = f"{GRAPH_FILE} edges"
    if not isinstance(given, list):
        problems.append(Problem("wrong value", where, f"expected a list of edge tables, got {given!r}"))
        return
    for number, entry in enumerate(given, start=1):
        words = ("table", "src", "dst", "reverse")
        found = _entry_problems(entry, EDGE_KEYS, ("type", "table", "src", "dst"), words, f"{where}[{number}]")
        if isinstance(entry, Mapping) and "type" in entry:
            etype = entry["type"]
            if not (isinstance(etype, list) and len(etype) == 3 and all(isinstance(part, str) for part in etype)):
                text = f"expected [source, name, destination], got {etype!r}"
                found.append(Problem("wrong value", f"{where}[{number}] type", text))
        problems += found
        if all(problem.kind == "unknown key" for problem in found):
            source, relation, destination = entry["type"]
            builder.add_edges(
                (source, relation, destination),
                entry["table"],
                src=entry["src"],
                dst=entry["dst"],
                reverse=entry.get("reverse"),
            )
