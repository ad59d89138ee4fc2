from __future__ import annotations

import importlib.util
import sqlite3
from pathlib import Path
from types import SimpleNamespace

import pytest

from hgmm.datasets import check_published, fetch, films, info, load, statistics
from hgmm.errors import DataError

OMDB = (
    'ID INTEGER, Title TEXT, Genre TEXT, Year INTEGER, Runtime REAL, Director TEXT, Writer TEXT, "Cast" TEXT, '
    "Metacritic INTEGER"
)
TOMATOES = "ID INTEGER, Meter INTEGER, Rating REAL, Reviews INTEGER, BoxOffice REAL, Production TEXT"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a package with a small database in the place of the real one, and return the database."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "bokeh_sampledata"
    (folder / "_data").mkdir(parents=True)
    monkeypatch.setattr(films, "find_spec", lambda name: SimpleNamespace(origin=str(folder / "__init__.py")))
    monkeypatch.setattr(films.metadata, "version", lambda name: "2027.4")
    path = folder / "_data" / "movies.db"
    with sqlite3.connect(path) as connection:
        connection.execute(f"CREATE TABLE omdb ({OMDB})")
        connection.execute(f"CREATE TABLE tomatoes ({TOMATOES})")
        for number in range(30):
            genre = ("Action, War", "Comedy", "Drama, Comedy", "Biography, Drama")[number % 4]
            people = (f"D{number % 3}", f"W{number % 7}", f"A{number % 5}, A{number % 2}")
            runtime = None if number == 5 else 90.0
            connection.execute(
                "INSERT INTO omdb VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (number, f"Title {number}", genre, 1990 + number, runtime, *people, number if number % 3 else None),
            )
            box = 1000.0 if number == 1 else None
            studio = "S" if number < 20 else None
            connection.execute(
                "INSERT INTO tomatoes VALUES (?, ?, ?, ?, ?, ?)", (number, 50, 5.5, 20 + number, box, studio)
            )
    connection.close()
    return path


def test_films_of_one_genre_and_people_of_two_films_are_kept(package: Path) -> None:
    graph = films.load_films()
    kept = [number for number in range(30) if number % 4 != 2]
    assert graph.node_ids["film"] == [str(number) for number in kept]
    assert graph.node_names["film"][0] == "Title 0"
    assert graph.schema.classes == ("Action", "Comedy", "Drama")
    assert graph.labels[:3].tolist() == [0, 1, 2]
    assert graph.node_ids["director"] == ["D0", "D1", "D2"]
    assert graph.num_nodes("writer") == 7
    assert graph.g.in_degrees(etype="written_by").min() >= 2
    present = graph.present("film")
    columns = graph.schema.modality_names
    assert not present[kept.index(5), columns.index("numeric")]
    assert present[:, columns.index("numeric")].sum() == len(kept) - 1
    assert present[:, columns.index("box_office")].nonzero().tolist() == [[kept.index(1)]]
    assert graph.g.num_edges("starring") == graph.g.num_edges("stars_in")
    assert graph.source.source == "official"
    assert graph.source.files == ("movies.db",)


def test_an_absent_or_old_package_is_named(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package.rename(package.with_name("other.db"))
    with pytest.raises(DataError, match=r"movies\.db is missing from bokeh_sampledata 2027\.4; run: pip install"):
        films.load_films()
    monkeypatch.setattr(films.metadata, "version", lambda name: "2025.0")
    with pytest.raises(DataError, match=r"needs bokeh_sampledata 2026\.1 or newer, found 2025\.0"):
        films.load_films()
    monkeypatch.setattr(films, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"needs the package bokeh_sampledata, .* run: pip install 'hgmm\[films\]'"):
        load("films")
    with pytest.raises(DataError, match=r"run: pip install 'hgmm\[films\]'"):
        fetch("films")


def test_a_file_that_is_no_database_is_named(package: Path) -> None:
    package.write_bytes(b"no database at all, but long enough to be read as one" * 40)
    with pytest.raises(DataError, match=r"movies\.db cannot be read \(.*not a database"):
        films.load_films()


def test_the_real_films(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("bokeh_sampledata") is None:
        pytest.skip("the package bokeh_sampledata is not installed: pip install 'hgmm[films]'")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    graph = load("films")
    check_published(graph, info("films"))
    assert statistics(graph)["split_sizes"] == [1953, 977, 6839]
    shares = dict(zip(graph.schema.modality_names, graph.present("film").float().mean(0).tolist(), strict=True))
    assert shares == pytest.approx(
        {"text": 1.0, "numeric": 0.933, "metacritic": 0.414, "box_office": 0.165, "structure": 0.0}, abs=1e-3
    )
