"""Folders that hold a knowledge graph: triples in one of three layouts, and what is known about the entities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hgmm.datasets.entity_vectors import read_entity_vectors
from hgmm.datasets.named_triples import ENTITY_LIST, MMKG_TRIPLES, mmkg_triples, tsv_files, tsv_triples
from hgmm.datasets.openke import OPENKE_FILES, openke_triples
from hgmm.files import file_sha256
from hgmm.graph import DataSource, MultimodalGraph
from hgmm.triples import TripleSet

__all__ = ["read_mmkg", "read_openke", "read_tsv"]


def read_openke(path: Path) -> MultimodalGraph:
    """Read a folder in OpenKE's layout.

    Parameters
    ----------
    path : Path
        Holds the files of `hgmm.datasets.openke.openke_triples`, and at will those of
        `hgmm.datasets.entity_vectors.read_entity_vectors`.

    Returns
    -------
    MultimodalGraph
        Its triples are as the files have them; the source's note counts repetitions and leaks.

    Raises
    ------
    DataError
        If a file is missing or breaks a rule of its format; problems of the triples are listed together.
    """
    return _graph(path, openke_triples(path), [path / name for name in OPENKE_FILES])


def read_tsv(path: Path, train_file: str = "train.tsv") -> MultimodalGraph:
    """Read a folder of tab-separated names.

    Parameters
    ----------
    path : Path
        Holds the files of `hgmm.datasets.named_triples.tsv_triples`, and vectors as for `read_openke`.
    train_file : str, optional
        ``train.tsv`` or ``train.txt``.

    Returns
    -------
    MultimodalGraph
        As `read_openke`.

    Raises
    ------
    DataError
        As `read_openke`.
    """
    files = [*tsv_files(path, train_file).values(), path / ENTITY_LIST]
    listed = (path / ENTITY_LIST).is_file()
    return _graph(path, tsv_triples(path, train_file), [file for file in files if file.is_file()], by_name=not listed)


def read_mmkg(path: Path) -> MultimodalGraph:
    """Read a folder in MMKG's layout, which has no split.

    Parameters
    ----------
    path : Path
        Holds the file of `hgmm.datasets.named_triples.mmkg_triples`, and numbers, image index and vectors as for
        `read_openke`.

    Returns
    -------
    MultimodalGraph
        As `read_openke`; the source's note tells the split.

    Raises
    ------
    DataError
        As `read_openke`.
    """
    triples, note = mmkg_triples(path)
    return _graph(path, triples, sorted(path.glob(MMKG_TRIPLES)), [note], by_name=True)


def _graph(
    path: Path, triples: TripleSet, files: Sequence[Path], notes: Sequence[str] = (), *, by_name: bool = False
) -> MultimodalGraph:
    """Return the graph; `by_name` says that entities have no order but that of their names."""
    vectors = read_entity_vectors(path, triples.entity_vocab)
    sums = {file.name: file_sha256(file) for file in sorted({*files, *vectors.files})}
    rows = vectors.by_position if by_name else []
    order = [f"rows of {', '.join(rows)} are the entities in the order of their names; {ENTITY_LIST} sets another"]
    note = "; ".join([*notes, *triples.report().leaks(), *vectors.notes, *(order if rows else [])])
    return MultimodalGraph.from_triples(
        triples,
        features=vectors.features,
        present=vectors.present,
        sources=vectors.sources,
        source=DataSource("local", files=tuple(sums), sha256=sums, note=note),
        name=path.resolve().name,
    )
