"""Time the draws of negatives of a knowledge graph, without any scoring.

    python -m benchmarks.negative_sampling --dataset db15k,synthetic --negatives 1,64,256 --threads 1,2

Positives are random training triples, and the training triples are what is known. Before anything is timed, negatives
of every provider are checked one by one, and known triples among them counted. Then all providers run in turns in one
process. `--json` writes one line a provider and case.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import click
import torch
from rich.console import Console
from torch import Tensor

from benchmarks._measure import Row, check_folder, choose_providers, collect, environment, summarise
from benchmarks._options import Numbers
from benchmarks._samplers import PROVIDERS, Drawn, Graph, Parts, Sampler
from benchmarks._table import figure, make_console, make_table, print_table
from hgmm import datasets
from hgmm.datasets.planted_triples import synthetic_knowledge_graph
from hgmm.errors import HgmmError
from hgmm.settings import prefer_large_pages

__all__ = ["OP", "SYNTHETIC", "Audit", "Case", "audit", "main", "measure"]

OP = "negative_sampling"
SYNTHETIC = "synthetic"
BASE = "hgmm-cpu"
WARMUP = 2
AUDITED = 8
# Of DB15K.
RELATIONS = 279
# Validation and test triples of the generated graph, which are not used.
HELD_OUT = (1, 1)
# A call that would take longer is given fewer positives.
LONGEST_S = 0.3
FEW = 64
# Calls in a row that are timed together take about so long, and are at most so many.
TURN_S = 0.03
MOST_CALLS = 32


@dataclass(frozen=True)
class Case:
    """B positives with K negatives each, for each number of threads."""

    B: int
    K: int
    threads: tuple[int, ...]
    rounds: int


class Audit(NamedTuple):
    """Negatives that were checked one by one.

    Attributes
    ----------
    positives : int
        Positives in a call: fewer than B for a slow provider.
    checked : int
        Negatives.
    known_true_left : int
        Of those delivered: training triples.
    delivered : float
        Mean number of negatives that a positive is left with.
    fewest_delivered : int
        Its minimum.
    wrongly_struck_out : int
        Negatives that are no training triples, and that a filter has taken for some.
    """

    positives: int
    checked: int
    known_true_left: int
    delivered: float
    fewest_delivered: int
    wrongly_struck_out: int

    def known_true_share(self, K: int) -> float:
        """Return the share of training triples among the negatives that were delivered."""
        return self.known_true_left / max(self.checked * self.delivered / K, 1)


def _positives(graph: Graph, size: int, number: int) -> Tensor:
    rng = torch.Generator().manual_seed(number)
    return graph.train[torch.randint(len(graph.train), (size,), generator=rng)]


def _known(graph: Graph, ordered: Tensor, triples: Tensor) -> Tensor:
    keys = graph.keys(triples)
    return ordered[torch.searchsorted(ordered, keys).clamp_(max=len(ordered) - 1)] == keys


def _check_form(name: str, graph: Graph, positives: Tensor, K: int, drawn: Drawn) -> None:
    expected = (len(positives), K, 3)
    if tuple(drawn.triples.shape) != expected:
        raise click.ClickException(f"{name}: expected negatives of {expected}, got {tuple(drawn.triples.shape)}")
    changed = drawn.triples != positives.unsqueeze(1)
    entities = drawn.triples[..., ::2]
    if bool(changed[..., 1].any()) or bool((changed.sum(2) != 1).any()):
        raise click.ClickException(f"{name}: a negative differs from its positive in another way than in one end")
    if bool(((entities < 0) | (entities >= graph.num_entities)).any()):
        raise click.ClickException(f"{name}: an entity is out of range")


def audit(name: str, sampler: Sampler, graph: Graph, ordered: Tensor, case: Case) -> Audit:
    """Draw some batches and look at every negative.

    Parameters
    ----------
    name
        Of the provider.
    sampler, graph, case
        What is drawn.
    ordered
        ``(n,)`` int64: `Graph.keys` of the training triples, ascending.

    Raises
    ------
    click.ClickException
        If a negative has the wrong form, or a known triple is left by a provider that filters them.
    """
    size = _fitting_size(sampler, graph, case)
    left = struck = delivered = 0
    fewest = case.K
    for number in range(AUDITED):
        positives = _positives(graph, size, number)
        drawn = sampler.drawn(sampler.draw(positives, case.K, number), positives)
        _check_form(name, graph, positives, case.K, drawn)
        known = _known(graph, ordered, drawn.triples)
        left += int((known & drawn.delivered).sum())
        struck += int((~known & ~drawn.delivered).sum())
        kept = drawn.delivered.sum(1)
        delivered += int(kept.sum())
        fewest = min(fewest, int(kept.min()))
    if left and PROVIDERS[name].filtered:
        raise click.ClickException(f"{name}: {left} known triples are left; nothing was timed")
    positives_seen = AUDITED * size
    return Audit(size, positives_seen * case.K, left, delivered / positives_seen, fewest, struck)


def _fitting_size(sampler: Sampler, graph: Graph, case: Case) -> int:
    """Return how many positives a call may have, at most B; the first call of a sampler may also set it up."""
    few, seconds = min(case.B, FEW), []
    for number in range(3):
        start = time.perf_counter()
        sampler.draw(_positives(graph, few, number), case.K, number)
        seconds.append(time.perf_counter() - start)
    return min(case.B, max(few, int(few * LONGEST_S / min(seconds))))


class _Clocks(NamedTuple):
    """Seconds of a call in each round: on the clock, of all processors, and of the turn's first call on the clock."""

    wall: list[float]
    cpu: list[float]
    cold: list[float]


def _seconds(
    samplers: Mapping[str, Sampler], graph: Graph, case: Case, sizes: Mapping[str, int]
) -> dict[tuple[str, int], _Clocks]:
    """Time every provider with every number of threads once a round, in an order that rotates."""
    turns = [(name, t) for t in case.threads for name in samplers if t == 1 or PROVIDERS[name].threaded]
    seconds = {turn: _Clocks([], [], []) for turn in turns}
    # Else every turn looks through the millions of tuples that a Python set of triples has.
    gc.collect()
    gc.freeze()
    for number in range(WARMUP + case.rounds):
        batches = [_positives(graph, case.B, number * (MOST_CALLS + 1) + call) for call in range(MOST_CALLS + 1)]
        shift = number % len(turns)
        for name, threads in turns[shift:] + turns[:shift]:
            with _threads(threads):
                taken = _turn(samplers[name], case.K, [some[: sizes[name]] for some in batches])
            if number >= WARMUP:
                for values, value in zip(seconds[name, threads], taken, strict=True):
                    values.append(value)
    gc.unfreeze()
    return seconds


def _turn(sampler: Sampler, K: int, batches: Sequence[Tensor]) -> tuple[float, float, float]:
    """Draw for the first batch, then for more in a row; return the mean seconds of these and those of the first."""
    # As timeit does: what other providers keep would be searched for garbage in the time of those that make objects.
    gc.collect()
    gc.disable()
    try:
        start = time.perf_counter()
        sampler.draw(batches[0], K, 0)
        cold = time.perf_counter() - start
        calls = min(max(1, int(TURN_S / cold)), len(batches) - 1)
        cpu, wall = time.process_time(), time.perf_counter()
        for number, positives in enumerate(batches[1 : calls + 1], start=1):
            sampler.draw(positives, K, number)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    finally:
        gc.enable()
    return wall / calls, cpu / calls, cold


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def measure(graph: Graph, samplers: Mapping[str, Sampler], ordered: Tensor, case: Case) -> list[dict[str, Any]]:
    """Check and time the providers on one case; return a row for each of them and each number of threads."""
    with _threads(1):
        audits = {name: audit(name, sampler, graph, ordered, case) for name, sampler in samplers.items()}
    seconds = _seconds(samplers, graph, case, {name: found.positives for name, found in audits.items()})
    place = environment()
    if any(name.startswith("pykeen") for name in samplers):
        place["versions"] = {**place["versions"], "pykeen": metadata.version("pykeen")}
    sizes = {
        "dataset": graph.name,
        "source": graph.source,
        "num_entities": graph.num_entities,
        "num_relations": graph.num_relations,
        "num_triples": len(graph.train),
        "batch": case.B,
        "num_negs_per_pos": case.K,
    }
    rows = []
    for (name, threads), taken in seconds.items():
        timing, found = summarise(taken.wall), audits[name]
        negatives = found.positives * case.K
        ns = timing.median_ms * 1e6 / negatives
        row = Row(
            op=OP,
            provider=name,
            mode="draw",
            dtype="int64",
            sizes=sizes,
            **timing._asdict(),
            peak_mib=None,
            warmup=WARMUP,
            rounds=case.rounds,
            **{**place, "threads": threads},
            extra={
                "ns_per_negative": ns,
                "cold_ns_per_negative": summarise(taken.cold).median_ms * 1e6 / negatives,
                "cpu_ns_per_negative": summarise(taken.cpu).median_ms * 1e6 / negatives,
                "million_per_s_per_core": 1e3 / ns / threads,
                **found._asdict(),
                "known_true_share": found.known_true_share(case.K),
            },
        )
        rows.append(row.flat())
    return rows


def show(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the rows of one case as a table."""
    first = rows[0]
    base = next((row["ns_per_negative"] for row in rows if (row["provider"], row["threads"]) == (BASE, 1)), None)
    figures = ["thr.", "ns", "p80", "cold\nns", "cpu\nns", "M/s\ncore", "true\n%", "given\n%"]
    table = make_table(["provider"], figures + ([] if base is None else ["/ base"]))
    for row in rows:
        ns = row["ns_per_negative"]
        cells = [ns, ns * row["p80_ms"] / row["median_ms"]]
        cells += [row["cold_ns_per_negative"], row["cpu_ns_per_negative"]]
        cells += [row["million_per_s_per_core"], 100 * row["known_true_share"]]
        cells += [100 * row["delivered"] / row["num_negs_per_pos"]] + ([] if base is None else [ns / base])
        table.add_row(row["provider"], str(row["threads"]), *map(figure, cells))
    title = f"{first['dataset']} ({first['source']}), {first['num_negs_per_pos']} negatives a positive: ns a negative"
    caption = f"{first['device']}; {first['batch']:,} positives, {first['num_entities']:,} entities, "
    caption += f"{first['num_triples']:,} triples"
    fewer = {row["provider"]: row["positives"] for row in rows if row["positives"] < row["batch"]}
    if fewer:
        caption += "; fewer positives: " + ", ".join(f"{name} {number}" for name, number in fewer.items())
    print_table(console, table, title=title, caption=caption)


def _load(name: str, data_root: str | None, entities: int, triples: int) -> Graph:
    if name == SYNTHETIC:
        found = synthetic_knowledge_graph(entities, RELATIONS, (triples, *HELD_OUT))
    else:
        found = datasets.load(name, root=data_root)
    rows = found.triples
    if rows is None or not len(rows.train):
        raise click.BadParameter(f"{name!r} has no training triples; name a knowledge graph", param_hint="--dataset")
    return Graph(name, found.source.source, rows.train, rows.num_entities, rows.num_relations)


def _names(named: Sequence[str]) -> list[str]:
    """Return data sets that exist and have triples."""
    names = [name.strip() for word in named for name in word.split(",")]
    for name in names:
        try:
            task = "link-prediction" if name == SYNTHETIC else datasets.info(name).task
        except HgmmError as error:
            raise click.BadParameter(str(error), param_hint="--dataset") from error
        if task != "link-prediction":
            raise click.BadParameter(f"{name!r} is for {task}; name a knowledge graph", param_hint="--dataset")
    return names


@click.command(help=__doc__)
@click.option("--dataset", "named", multiple=True, default=["db15k"], show_default=True, help="NAME, DIR or synthetic.")
@click.option("--data-root", type=click.Path(file_okay=False), help="Folder of the published files.")
@click.option("--entities", type=click.IntRange(min=2), default=1_000_000, show_default=True, help="Of synthetic.")
@click.option("--triples", type=click.IntRange(min=2), default=10_000_000, show_default=True, help="Of synthetic.")
@click.option("--negatives", type=Numbers(), default="1,64,256", show_default=True, help="Negatives K of a positive.")
@click.option("--batch", type=click.IntRange(min=1), default=1024, show_default=True, help="Positives B.")
@click.option("--threads", type=Numbers(), default="1", show_default=True, help="Comma-separated.")
@click.option("--providers", "chosen", help="Comma-separated; default: all that run here.")
@click.option("--rounds", type=click.IntRange(min=1), default=20, show_default=True)
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write JSON Lines here.")
def main(
    named: tuple[str, ...],
    data_root: str | None,
    entities: int,
    triples: int,
    negatives: list[int],
    batch: int,
    threads: list[int],
    chosen: str | None,
    rounds: int,
    json_path: Path | None,
) -> None:
    prefer_large_pages()
    check_folder(json_path)
    names = _names(named)
    if SYNTHETIC in names and triples < max(entities, RELATIONS):
        raise click.BadParameter(
            f"expected at least as many as entities ({entities}) and relations ({RELATIONS}), got {triples}",
            param_hint="--triples",
        )
    console = make_console()
    providers = choose_providers(chosen, PROVIDERS, lambda name: PROVIDERS[name].missing(), console)

    def measured() -> Iterator[list[dict[str, Any]]]:
        for name in names:
            graph = _load(name, data_root, entities, triples)
            parts = Parts(graph)
            samplers = {name: PROVIDERS[name].build(parts) for name in providers}
            ordered = graph.keys(graph.train).sort().values
            for K in negatives:
                rows = measure(graph, samplers, ordered, Case(batch, K, tuple(threads), rounds))
                show(console, rows)
                yield rows

    try:
        collect(measured(), json_path)
    except HgmmError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
