"""Films of Wikidata with the people and studios behind them, from the package bokeh_sampledata (CC0)."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd

from hgmm.datasets.base import Dataset, DatasetInfo, check_published, register
from hgmm.errors import DataError
from hgmm.files import file_sha256
from hgmm.graph import DataSource, MultimodalGraph
from hgmm.graph.builder import GraphBuilder

__all__ = ["FilmsDataset", "load_films"]

PACKAGE = "bokeh_sampledata"
INSTALL = "run: pip install 'hgmm[films]'"
GENRES = ("Action", "Comedy", "Drama")
RELEASE = "2026.1"
"""The first release whose films come from Wikidata, and the one that the published numbers describe."""

# Node type, column of names, etype, reverse etype.
PEOPLE = (
    ("director", "Director", "directed_by", "directed"),
    ("writer", "Writer", "written_by", "wrote"),
    ("actor", "Cast", "starring", "stars_in"),
    ("studio", "Production", "produced_by", "produced"),
)
FACTS = ("Year", "Runtime", "Meter", "Score", "Reviews")
QUERY = """
SELECT o.ID, o.Title, o.Genre, o.Year, o.Runtime, o.Director, o.Writer, o.Cast, o.Metacritic,
       t.Meter, t.Rating AS Score, t.Reviews, t.BoxOffice, t.Production
FROM omdb AS o JOIN tomatoes AS t ON o.ID = t.ID ORDER BY o.ID
"""


@register
class FilmsDataset(Dataset):
    """Films that are either action, comedy or drama; needs the extra ``films``."""

    info = DatasetInfo(
        name="films",
        title="Films of Wikidata, their people and studios",
        description=(
            "Is a film action, comedy or drama? Films carry a title (text), year, runtime and reviews (numeric), and "
            "some of them a Metacritic score or a box office; directors, writers, actors and studios with at least two "
            "films connect them. What Wikidata does not know is missing."
        ),
        target="film",
        licence="CC0-1.0",
        citation="Wikidata, snapshot of 18 October 2026, in bokeh_sampledata 2026.1",
        url="https://github.com/bokeh/bokeh_sampledata",
        published={
            "film": 9769,
            "director": 1824,
            "writer": 2343,
            "actor": 18336,
            "studio": 773,
            "directed_by": 7247,
            "written_by": 8635,
            "starring": 96915,
            "produced_by": 7440,
            "classes": 3,
            "class_counts": [1067, 2811, 5891],
        },
        ntypes=("film", "director", "writer", "actor", "studio"),
    )

    def load(self, root: Path, *, require_official: bool = False) -> MultimodalGraph:
        """Return the graph; `root` and `require_official` change nothing, for the data is in an installed package."""
        return load_films()

    def fetch(self, root: Path) -> list[Path]:
        """Download nothing: the data comes with a package, and without it the error says how to install that."""
        _database()
        return []


def load_films() -> MultimodalGraph:
    """Build the graph of films from the installed package.

    Returns
    -------
    MultimodalGraph
        Node types ``film`` (labels; split 20/10/70 within each class, seed 0), ``director``, ``writer``, ``actor`` and
        ``studio`` (their names are ids; they have no features of their own). Modalities of a film: ``text``, its title;
        ``numeric``, where year, runtime, share and mean of positive reviews and their number are all known;
        ``metacritic``, a score; ``box_office``, the logarithm of dollars. People of one name are one node.

    Raises
    ------
    DataError
        If the package is not installed, is older than its Wikidata snapshot, or differs from the published numbers.
    """
    path, release = _database()
    films = _films(path)
    builder = GraphBuilder("film", name="films")
    builder.add_nodes(
        "film",
        films,
        id="ID",
        name="Title",
        label="label",
        split={"train": 0.2, "val": 0.1, "test": 0.7, "seed": 0},
        modalities={
            "text": {"column": "Title"},
            "numeric": {"columns": list(FACTS)},
            "metacritic": {"columns": ["Metacritic"], "kind": "numeric"},
            "box_office": {"columns": ["BoxOffice"], "kind": "numeric"},
        },
    )
    for ntype, column, etype, reverse in PEOPLE:
        pairs = _shared_names(films, column)
        builder.add_nodes(ntype, pd.DataFrame({"name": sorted(pairs["name"].unique())}), id="name", name="name")
        builder.add_edges(("film", etype, ntype), pairs, src="ID", dst="name", reverse=reverse)
    graph = builder.build()
    graph.source = DataSource("official", files=(path.name,), sha256={path.name: file_sha256(path)})
    if release == RELEASE:
        check_published(graph, FilmsDataset.info)
    return graph


def _database() -> tuple[Path, str]:
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise DataError(f"dataset films: needs the package {PACKAGE}, and it is not installed; {INSTALL}")
    release = metadata.version(PACKAGE)
    if tuple(map(int, release.split(".")[:2])) < tuple(map(int, RELEASE.split("."))):
        raise DataError(
            f"dataset films: needs {PACKAGE} {RELEASE} or newer, found {release}, which holds other data; {INSTALL}"
        )
    path = Path(spec.origin).parent / "_data" / "movies.db"
    if not path.is_file():
        raise DataError(f"dataset films: {path} is missing from {PACKAGE} {release}; {INSTALL}")
    return path, release


def _films(path: Path) -> pd.DataFrame:
    """Return the films that have exactly one of the genres; facts of a film count only if all are known."""
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
            cursor = connection.execute(QUERY)
            films = pd.DataFrame(cursor.fetchall(), columns=[column[0] for column in cursor.description])
    except sqlite3.Error as error:
        raise DataError(f"dataset films: {path} cannot be read ({error}); {INSTALL}") from error
    listed = films["Genre"].str.get_dummies(", ").reindex(columns=list(GENRES), fill_value=0)
    chosen = listed.sum(axis=1) == 1
    films = films[chosen].assign(ID=films["ID"].astype(str), label=listed[chosen].idxmax(axis=1))
    films = films.reset_index(drop=True)
    numbers = [*FACTS, "Metacritic", "BoxOffice"]
    films[numbers] = films[numbers].astype(float)
    films.loc[films[list(FACTS)].isna().any(axis=1), list(FACTS)] = float("nan")
    films["BoxOffice"] = np.log10(films["BoxOffice"].where(films["BoxOffice"] > 0))
    return films


def _shared_names(films: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return the distinct (film, name) pairs of those names that at least two films list."""
    pairs = films[["ID"]].assign(name=films[column].str.split(", ")).explode("name").dropna()
    pairs = pairs[pairs["name"] != ""].drop_duplicates()
    return pairs[pairs.groupby("name")["ID"].transform("size") >= 2].reset_index(drop=True)
