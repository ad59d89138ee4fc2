"""Time the filtered evaluation of a knowledge graph's test triples, and the same with all features projected anew.

    python -m benchmarks.kg_evaluation --dataset db15k --data-root DIR

The model is `mm-transe` with structure and one image modality, all four pairs, at its start: weights do not change the
cost. The image vectors are stand-ins, seeded random numbers of the width that is asked for. `hgmm` projects them once
and ranks both ends of every test triple among all entities, from building the filter to the metrics. `re-projected`
takes triple by triple, as released code does, and projects the features of all entities again for each end; it is
measured on some triples and extrapolated to all. Both must give equal ranks in float64 on a small graph before anything
is timed. CPU seconds are those of the process, all threads together.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from benchmarks._measure import (
    Row,
    check_folder,
    environment,
    peak_in_fresh_process,
    peak_of_call,
    summarise,
    write_rows,
)
from benchmarks._table import figure, make_console, make_table, print_table
from hgmm import datasets
from hgmm.errors import HgmmError
from hgmm.graph import MultimodalGraph
from hgmm.kg import TripleSet
from hgmm.models import MMTransE
from hgmm.settings import prefer_large_pages
from hgmm.training.link_task import make_evaluator, ranking_figures

__all__ = ["OP", "PROVIDERS", "Case", "Problem", "check_gate", "main", "measure", "ranks_one_by_one"]

OP = "kg_evaluation"
PROVIDERS = ("hgmm", "re-projected")
MODALITY = "image"
GATE_SIZES = {"num_entities": 40, "num_relations": 3, "num_triples": 200, "width": 7, "dim": 6}


@dataclass(frozen=True)
class Case:
    """What is evaluated: a data set, the width of its stand-in vectors, D, and how many triples are sampled."""

    dataset: str
    data_root: str | None
    width: int
    dim: int
    sample: int
    threads: int
    seed: int = 0


class Cost(NamedTuple):
    """Processor and wall time of one evaluation of all test triples, in seconds."""

    cpu_s: float
    wall_s: float


class Problem:
    """A model at its start and the triples that it ranks."""

    def __init__(self, triples: TripleSet, *, width: int, dim: int, seed: int, source: str) -> None:
        rng = torch.Generator().manual_seed(seed)
        self.triples, self.source = triples, source
        image = torch.randn(triples.num_entities, width, generator=rng)
        graph = MultimodalGraph.from_triples(triples, features={MODALITY: image}, name=OP)
        torch.manual_seed(seed)
        self.model = MMTransE(graph.schema, triples.num_entities, dim=dim).set_features({MODALITY: image})

    @classmethod
    def of(cls, case: Case) -> Problem:
        """Read the data of a case.

        Raises
        ------
        click.ClickException
            If it is no knowledge graph or has no test triple.
        """
        graph = datasets.load(case.dataset, root=case.data_root)
        if graph.triples is None or not len(graph.triples.test):
            raise click.ClickException(f"{case.dataset}: must be a knowledge graph with test triples; choose another")
        return cls(graph.triples, width=case.width, dim=case.dim, seed=case.seed, source=graph.source.source)

    def evaluate(self) -> dict[str, float]:
        """Rank both ends of all test triples, filtered, as a run does."""
        return ranking_figures(self.model, make_evaluator(self.triples), self.triples.test)

    def sample(self, size: int, seed: int) -> Tensor:
        """Return test triples ``(size, 3)``, or all if there are fewer."""
        order = torch.randperm(len(self.triples.test), generator=torch.Generator().manual_seed(seed))
        return self.triples.test[order[:size]]


@torch.no_grad()
def ranks_one_by_one(model: MMTransE, known: Tensor, rows: Tensor) -> Tensor:
    """Return filtered ranks ``(n, 2)`` of heads and tails, ties at their mean; projects all features for each.

    Parameters
    ----------
    model : MMTransE
        With its features.
    known : Tensor
        ``(N, 3)`` true triples.
    rows : Tensor
        ``(n, 3)`` triples to rank.
    """
    ranks = torch.empty(len(rows), 2, dtype=torch.float64)
    for number, (head, relation, tail) in enumerate(rows.tolist()):
        r = model.relation_vectors(torch.tensor(relation))
        for side, (given, right) in enumerate(((tail, head), (head, tail))):
            tables = model.project().unbind(1)
            distance = torch.zeros(len(tables[0]), dtype=r.dtype)
            for a, t in model.pairs.pairs:
                candidates = (tables[a] + r - tables[t][given]) if side == 0 else (tables[a][given] + r - tables[t])
                distance += candidates.abs().sum(1)
            same = (known[:, 1] == relation) & (known[:, 2 - 2 * side] == given)
            others = torch.ones(len(distance), dtype=torch.bool)
            others[known[same, 2 * side]] = False
            own, rivals = distance[right], distance[others]
            ranks[number, side] = 1 + (rivals < own).sum() + (rivals == own).sum() / 2
    return ranks


def check_gate() -> None:
    """Compare both ways in float64 on a small graph.

    Raises
    ------
    click.ClickException
        With the first triple whose ranks differ.
    """
    rng = torch.Generator().manual_seed(0)
    E, R, n = (GATE_SIZES[name] for name in ("num_entities", "num_relations", "num_triples"))
    drawn = (torch.rand(n, 3, generator=rng) * torch.tensor([E, R, E])).long()
    names = tuple(f"e{i}" for i in range(E)), tuple(f"r{i}" for i in range(R))
    triples = TripleSet(drawn[: n // 2], drawn[n // 2 : n // 2 + 10], drawn[n // 2 + 10 :], *names)
    problem = Problem(triples, width=GATE_SIZES["width"], dim=GATE_SIZES["dim"], seed=0, source="synthetic")
    model = problem.model.double()
    found = make_evaluator(triples).evaluate(model.candidates(), triples.test).filtered.rank()
    expected = ranks_one_by_one(model, triples.known, triples.test)
    wrong = (found != expected).any(1).nonzero()
    if len(wrong):
        row = int(wrong[0])
        raise click.ClickException(
            f"hgmm and re-projected disagree: test triple {triples.test[row].tolist()} has the ranks "
            f"{found[row].tolist()} and {expected[row].tolist()}; nothing was timed"
        )


def _timed(call: Callable[[], Any]) -> Cost:
    cpu, wall = time.process_time(), time.perf_counter()
    call()
    return Cost(time.process_time() - cpu, time.perf_counter() - wall)


def _calls(problem: Problem, case: Case) -> dict[str, tuple[Callable[[], Any], float]]:
    """Return by provider what is measured, and which multiple of it all test triples take."""
    rows = problem.sample(case.sample, case.seed)
    known = problem.triples.known
    return {
        "hgmm": (problem.evaluate, 1.0),
        "re-projected": (
            lambda: ranks_one_by_one(problem.model, known, rows),
            len(problem.triples.test) / len(rows),
        ),
    }


def _peak(provider: str, case: Case) -> float:
    torch.set_num_threads(case.threads)
    # Thread pools and lazily loaded code belong to the process, not to the evaluation.
    check_gate()
    call, _ = _calls(Problem.of(case), case)[provider]
    return peak_of_call(call)


def measure(case: Case, rounds: int, *, peaks: bool) -> list[dict[str, Any]]:
    """Time both providers on one case, in turns, and return a row for each."""
    torch.set_num_threads(case.threads)
    check_gate()
    peak = {}
    for name in PROVIDERS if peaks else ():
        peak[name] = peak_in_fresh_process(
            "benchmarks.kg_evaluation", ["--peak-of", name, json.dumps(asdict(case))], name
        )
    problem = Problem.of(case)
    calls = _calls(problem, case)
    costs: dict[str, list[Cost]] = {name: [] for name in PROVIDERS}
    for _ in range(rounds):
        for name, (call, times) in calls.items():
            costs[name].append(Cost(*(times * seconds for seconds in _timed(call))))
    triples = problem.triples
    sizes = {key: value for key, value in asdict(case).items() if key not in ("data_root", "threads", "sample")}
    sizes |= {"source": problem.source, "E": triples.num_entities, "R": triples.num_relations}
    place = environment()
    return [
        Row(
            op=OP,
            provider=name,
            mode="evaluation",
            dtype="float32",
            sizes=sizes | {"test": len(triples.test), "pairs": len(problem.model.pairs)},
            **summarise([cost.wall_s for cost in costs[name]])._asdict(),
            peak_mib=peak.get(name),
            warmup=0,
            rounds=rounds,
            **place,
            extra={
                "cpu_s": float(np.median([cost.cpu_s for cost in costs[name]])),
                "stand_in_vectors": True,
                "extrapolated_from": None if times == 1 else round(len(triples.test) / times),
            },
        ).flat()
        for name, (_, times) in calls.items()
    ]


def show(console: Console, rows: Sequence[dict[str, Any]]) -> None:
    """Print the rows of one case as a table."""
    table = make_table(["provider", "measured on"], ["CPU s", "wall s", "peak\nMiB", "CPU\n/ hgmm"])
    base = next(row["cpu_s"] for row in rows if row["provider"] == PROVIDERS[0])
    for row in rows:
        sample = row["extrapolated_from"]
        measured = "all triples" if sample is None else f"{sample:,}, extrapolated"
        cells = [row["cpu_s"], row["median_ms"] / 1e3, row["peak_mib"], row["cpu_s"] / base]
        table.add_row(row["provider"], measured, *map(figure, cells))
    first = rows[0]
    title = f"Filtered ranks of both ends of {first['test']:,} test triples of {first['dataset']} ({first['source']})"
    print_table(
        console,
        table,
        title=title,
        caption=f"{first['E']:,} entities, {first['pairs']} pairs, D = {first['dim']}, stand-in vectors of width "
        f"{first['width']:,}\n{first['device']}, {first['threads']} threads",
    )


@click.command(help=__doc__)
@click.option("--dataset", default="db15k", show_default=True, help="A knowledge graph: name or ./folder.")
@click.option("--data-root", type=click.Path(file_okay=False), help="Folder of the published files.")
@click.option("--width", type=click.IntRange(min=1), default=4096, show_default=True, help="Of the stand-in vectors.")
@click.option("--dim", type=click.IntRange(min=1), default=128, show_default=True, help="D.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--sample", type=click.IntRange(min=1), default=10, show_default=True, help="Triples of re-projected.")
@click.option("--rounds", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--no-memory", is_flag=True, help="Leave out peak memory.")
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write JSON Lines here.")
@click.option("--peak-of", nargs=2, hidden=True)
def main(
    dataset: str,
    data_root: str | None,
    width: int,
    dim: int,
    threads: int,
    sample: int,
    rounds: int,
    no_memory: bool,
    json_path: Path | None,
    peak_of: tuple[str, str] | None,
) -> None:
    prefer_large_pages()
    if peak_of is not None:
        provider, case = peak_of
        click.echo(_peak(provider, Case(**json.loads(case))))
        return
    check_folder(json_path)
    console = make_console()
    try:
        rows = measure(Case(dataset, data_root, width, dim, sample, threads), rounds, peaks=not no_memory)
    except HgmmError as error:
        raise click.ClickException(str(error)) from error
    show(console, rows)
    if json_path is not None:
        write_rows(json_path, rows)


if __name__ == "__main__":
    main()
