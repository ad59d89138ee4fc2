"""Time a whole training step of a knowledge graph model beside PyKEEN's: positive triples a second.

    python -m benchmarks.kg_step --dataset db15k --data-root DIR

A step draws the negatives of a batch, scores, takes the loss, its gradients and a step of Adam: TransE with norm 1 on
vectors of length 1 (or `--interaction`), Bernoulli sampling without the triples of training, and the self-adversarial
loss, in both. Before anything is timed, both must give the same loss for the same vectors and negatives. Then all take
a few steps in turns in one process; peak memory is that of the first step in a fresh process each. `cpu_ms` is the
processor time of a step, of all threads: on a busy machine, with one thread (OMP_NUM_THREADS=1), the fairer figure.

With `--features` the model has modalities beside the structure, random ones of these widths, and scores all pairs;
PyKEEN has nothing like it and is left out.
"""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib import metadata
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import click
import torch
from rich.console import Console
from torch import Tensor

from benchmarks._measure import (
    Row,
    check_folder,
    choose_providers,
    collect,
    environment,
    interleaved,
    peak_in_fresh_process,
    peak_of,
    summarise,
)
from benchmarks._options import Numbers
from benchmarks._table import figure, make_console, make_table, print_table
from hgmm import datasets
from hgmm.errors import DataError, HgmmError
from hgmm.graph import GraphSchema, ModalitySpec, MultimodalGraph
from hgmm.kg import TripleSet
from hgmm.models import MMKGE
from hgmm.sampling import NegativeBatch
from hgmm.settings import keep_freed_memory, prefer_large_pages
from hgmm.training import LinkConfig, LinkPredictionTask, TrainConfig
from hgmm.training.hooks import training_loss
from hgmm.training.link_loader import TripleBatch
from hgmm.training.optimizers import make_optimizer

__all__ = ["OP", "PROVIDERS", "Case", "check_gate", "main", "measure"]

OP = "kg_step"
OPTIMIZERS = {"hgmm": "adamw", "hgmm-fused": "adamw-fused", "hgmm-rows": "adamw-rows", "hgmm-shared": "adamw-fused"}
SHARED = "hgmm-shared"
INTERACTIONS = ("transe", "distmult", "complex", "rotate")
# Those whose vectors are laid out alike in both.
OUTSIDE_MODELS = {"transe": "TransE", "distmult": "DistMult"}
OUTSIDE = "pykeen"
PROVIDERS = (*OPTIMIZERS, OUTSIDE)
BASE = "hgmm"
WARMUP = 2
MARGIN, TEMPERATURE, LEARNING_RATE = 6.0, 1.0, 1e-3
GATE = {"B": 16, "K": 4}
GATE_TOLERANCE = 1e-5
# Of a graph that is drawn at random.
RANDOM_TRIPLES, RANDOM_RELATIONS = 100_000, 100


@dataclass(frozen=True)
class Case:
    """Sizes of one problem: B positives with K negatives each, vectors of D numbers, and the graph.

    `entities` are those of a random graph that takes the place of the data set; `widths` those of the modalities;
    `chunk_size` the positives that share their candidates for `hgmm-shared`.
    """

    B: int
    K: int
    D: int
    dataset: str
    root: str | None = None
    entities: int | None = None
    widths: tuple[int, ...] = ()
    filtered: bool = True
    seed: int = 0
    interaction: str = "transe"
    chunk_size: int = 64


class Training(Protocol):
    """What can be timed."""

    def step(self) -> None:
        """Take a training step."""
        ...


@cache
def load_triples(dataset: str, root: str | None, entities: int | None) -> tuple[TripleSet, str]:
    """Return the triples of a case and where they come from."""
    if entities is None:
        graph = datasets.load(dataset, root=root)
        if graph.triples is None:
            raise DataError(f"{dataset}: it has no triples; choose a knowledge graph")
        return graph.triples, graph.source.source
    rng = torch.Generator().manual_seed(0)
    sizes = (entities, RANDOM_RELATIONS, entities)
    rows = torch.stack([torch.randint(size, (RANDOM_TRIPLES,), generator=rng) for size in sizes], 1)
    names = tuple(map(str, range(entities)))
    return TripleSet(rows, rows[:0], rows[:0], names, names[:RANDOM_RELATIONS]), "random"


class Ours:
    """The step that `hgmm.training.Trainer` takes."""

    def __init__(self, case: Case, provider: str) -> None:
        triples, _ = load_triples(case.dataset, case.root, case.entities)
        self.case, names = case, [f"m{m}" for m in range(len(case.widths))]
        specs = {name: ModalitySpec("other", width) for name, width in zip(names, case.widths, strict=True)}
        etype = ("entity", "triple", "entity")
        schema = GraphSchema(("entity",), (etype,), {"entity": specs}, relations=triples.relation_vocab)
        torch.manual_seed(case.seed)
        self.model = MMKGE(schema, triples.num_entities, dim=case.D, interaction=case.interaction)
        self.model.set_features({name: torch.randn(triples.num_entities, specs[name].width) for name in names})
        link = LinkConfig(
            num_negs_per_pos=case.K,
            batch_size=case.B,
            filter="train" if case.filtered else "none",
            chunk_size=case.chunk_size if provider == SHARED else 1,
            loss="self-adversarial",
            margin=MARGIN,
            adversarial_temperature=TEMPERATURE,
        )
        config = TrainConfig(
            learning_rate=LEARNING_RATE,
            weight_decay=0.0,
            gradient_clip=0.0,
            scheduler="none",
            optimizer=OPTIMIZERS[provider],
            seed=case.seed,
        )
        self.task = LinkPredictionTask(link)
        self.optimizer = make_optimizer(self.model, config)
        plan = self.task.plan(self.model, MultimodalGraph.from_triples(triples), config, torch.device("cpu"))
        self.batches = (batch for epoch in count(1) for batch in plan.train.batches(epoch) if len(batch[0]) == case.B)

    def step(self) -> None:
        """Take a training step."""
        batch = next(self.batches)
        self.optimizer.zero_grad(set_to_none=True)
        loss, _ = training_loss(self.task, self.model, batch)
        # The trainer looks at every loss.
        float(loss.detach())
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.optimizer.step()


class Pykeen:
    """The step of PyKEEN's SLCWATrainingLoop."""

    def __init__(self, case: Case) -> None:
        # Only here: it is no dependency.
        from pykeen import models
        from pykeen.losses import NSSALoss
        from pykeen.training import SLCWATrainingLoop
        from pykeen.triples import CoreTriplesFactory
        from pykeen.triples.instances import BatchedSLCWAInstances

        triples, _ = load_triples(case.dataset, case.root, case.entities)
        self.case = case
        sizes = {"num_entities": triples.num_entities, "num_relations": triples.num_relations}
        factory = CoreTriplesFactory(triples.train, **sizes)
        # Its DistMult has a regulariser unless told otherwise.
        options = {"scoring_fct_norm": 1} if case.interaction == "transe" else {"regularizer": None}
        self.model = getattr(models, OUTSIDE_MODELS[case.interaction])(
            triples_factory=factory,
            embedding_dim=case.D,
            **options,
            loss=NSSALoss(margin=MARGIN, adversarial_temperature=TEMPERATURE),
            random_seed=case.seed,
        )
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=LEARNING_RATE)
        sampler = {"num_negs_per_pos": case.K} | ({"filtered": True, "filterer": "bloom"} if case.filtered else {})
        choice = {"negative_sampler": "bernoulli", "negative_sampler_kwargs": sampler}
        self.loop = SLCWATrainingLoop(
            model=self.model,
            triples_factory=factory,
            optimizer=self.optimizer,
            automatic_memory_optimization=False,
            **choice,
        )
        instances = BatchedSLCWAInstances.from_triples_factory(factory, batch_size=case.B, drop_last=True, **choice)
        self.batches: Iterator[Any] = (batch for _ in count() for batch in instances)
        self.model.train()

    def step(self) -> None:
        """Take a training step: what its loop does with a batch, and its callback after it."""
        batch = next(self.batches)
        self.optimizer.zero_grad(set_to_none=True)
        self.backward(batch)
        self.optimizer.step()
        self.model.post_parameter_update()

    def backward(self, batch: Mapping[str, Tensor]) -> float:
        """Give the parameters the gradients of a batch and return its loss."""
        size = len(batch["positives"])
        loss: float = self.loop._forward_pass(batch, 0, size, size, 0.0, None)
        return loss


def make(case: Case, provider: str) -> Training:
    """Return what a provider trains."""
    return Pykeen(case) if provider == OUTSIDE else Ours(case, provider)


def check_gate(providers: Sequence[str], case: Case) -> None:
    """Compare the losses of all providers for the same vectors and negatives.

    Raises
    ------
    click.ClickException
        Naming the provider and both losses.
    """
    small = replace(case, **GATE)
    base = Ours(small, BASE)
    positives, negatives = next(Ours(small, SHARED if SHARED in providers else BASE).batches)
    alone = negatives._replace(shared=None)
    expected = float(training_loss(base.task, base.model, TripleBatch(positives, alone))[0].detach())
    for provider in providers:
        found = _loss(provider, small, base, positives, negatives if provider == SHARED else alone)
        if not abs(found - expected) <= GATE_TOLERANCE * abs(expected):
            raise click.ClickException(
                f"{provider} disagrees: its loss is {found:.6g} and that of {BASE} {expected:.6g} for the same "
                "vectors and negatives; nothing was timed"
            )


def _loss(provider: str, case: Case, base: Ours, positives: Tensor, negatives: NegativeBatch) -> float:
    if provider != OUTSIDE:
        other = Ours(case, provider)
        return float(training_loss(other.task, other.model, TripleBatch(positives, negatives))[0].detach())
    theirs = Pykeen(case)
    structure, relation = (
        torch.nn.functional.normalize(x.detach()) if base.model.normalize else x.detach()
        for x in (base.model.structure, base.model.relation)
    )
    tables = [
        representations[0]._embeddings
        for representations in (theirs.model.entity_representations, theirs.model.relation_representations)
    ]
    with torch.no_grad():
        for table, vectors in zip(tables, (structure, relation), strict=True):
            table.weight.copy_(vectors)
    return theirs.backward({"positives": positives, "negatives": negatives.triples(positives)})


def _peak(provider: str, case: Case) -> float:
    # Thread pools and lazily loaded code belong to the process, not to the step.
    make(replace(case, **GATE), provider).step()
    return peak_of(make(case, provider).step)


def measure(case: Case, providers: Sequence[str], rounds: int, number: int, *, peaks: bool) -> list[dict[str, Any]]:
    """Time the providers on one case, `number` steps a round, and return a row for each of them."""
    check_gate(providers, case)
    peak = {}
    for name in providers if peaks else ():
        arguments = ["--peak-of", name, json.dumps(asdict(case))]
        peak[name] = peak_in_fresh_process("benchmarks.kg_step", arguments, name)
    seconds: dict[str, list[float]] = {name: [] for name in providers}
    steps = {name: _several(make(case, name).step, number, seconds[name]) for name in providers}
    times = interleaved(steps, rounds=rounds, warmup=WARMUP)
    triples, source = load_triples(case.dataset, case.root, case.entities)
    place = environment()
    if OUTSIDE in providers:
        place["versions"] |= {OUTSIDE: metadata.version(OUTSIDE)}
    sizes = {
        "B": case.B,
        "K": case.K,
        "D": case.D,
        "E": triples.num_entities,
        "R": triples.num_relations,
        "train": len(triples.train),
        "widths": list(case.widths),
        "P": (1 + len(case.widths)) ** 2,
        "dataset": case.dataset if case.entities is None else "random",
        "source": source,
        "filtered": case.filtered,
        "seed": case.seed,
        "interaction": case.interaction,
    }
    rows = []
    for name in providers:
        timing = summarise([second / number for second in times[name].of("forward")])
        row = Row(
            op=OP,
            provider=name,
            mode="step",
            dtype="float32",
            sizes=sizes,
            **timing._asdict(),
            peak_mib=peak.get(name),
            warmup=WARMUP,
            rounds=rounds,
            **place,
            extra={
                "positives_per_s": case.B / (timing.median_ms / 1e3),
                "steps": number,
                "cpu_ms": summarise(seconds[name][WARMUP:]).median_ms,
                "chunk_size": case.chunk_size if name == SHARED else 1,
            },
        )
        rows.append(row.flat())
    return rows


def _several(step: Callable[[], None], number: int, seconds: list[float]) -> Callable[[], None]:
    """Take steps one after the other, as in training, and note the processor time of one."""

    def several() -> None:
        start = time.process_time()
        for _ in range(number):
            step()
        seconds.append((time.process_time() - start) / number)

    return several


def show(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the rows of one case as a table."""
    base = next((row for row in rows if row["provider"] == OUTSIDE), None)
    figures = ["median\nms", "p20\nms", "p80\nms", "cpu\nms", "peak\nMiB", "positives\n/s"]
    table = make_table(["provider"], [*figures, "rate", "cpu", "peak"] if base else figures)
    for row in rows:
        cells = [row[key] for key in ("median_ms", "p20_ms", "p80_ms", "cpu_ms", "peak_mib", "positives_per_s")]
        if base:
            cells += [row["positives_per_s"] / base["positives_per_s"], row["cpu_ms"] / base["cpu_ms"]]
            cells.append(row["peak_mib"] / base["peak_mib"] if base["peak_mib"] else None)
        table.add_row(row["provider"], *map(figure, cells))
    first = rows[0]
    title = f"{OP}, {first['interaction']}, B x K = {first['B']:,} x {first['K']}, D = {first['D']}, {first['P']} pairs"
    graph = f"{first['dataset']} ({first['source']}), {first['E']:,} entities"
    caption = f"{first['device']}, {first['threads']} threads, {graph}" + ("; last 3: / pykeen" if base else "")
    print_table(console, table, title=title, caption=caption)


def _missing(widths: Sequence[int], interaction: str) -> Callable[[str], str | None]:
    def reason(name: str) -> str | None:
        if name != OUTSIDE:
            return None
        if interaction not in OUTSIDE_MODELS:
            return f"keeps the vectors of {interaction} in another form"
        if widths:
            return "scores no pairs of modalities"
        return None if importlib.util.find_spec(OUTSIDE) else "is not installed; pip install pykeen==1.11.1"

    return reason


@click.command(help=__doc__)
@click.option("--dataset", default="db15k", show_default=True, help="A registered name, or a folder.")
@click.option("--data-root", "root", type=click.Path(file_okay=False), help="The folder of the published files.")
@click.option("--entities", type=click.IntRange(min=2), help="Of a random graph in place of a data set.")
@click.option("--batch", type=click.IntRange(min=1), default=1024, show_default=True, help="Positives B.")
@click.option("--draws", type=Numbers(), default="64,256", show_default=True, help="Negatives K of each.")
@click.option("--width", type=click.IntRange(min=1), default=128, show_default=True, help="D.")
@click.option("--interaction", type=click.Choice(INTERACTIONS), default="transe", show_default=True)
@click.option("--chunk-size", type=click.IntRange(min=2), default=64, show_default=True, help="Of hgmm-shared.")
@click.option("--features", type=Numbers(), help="Widths of modalities beside the structure.")
@click.option("--unfiltered", is_flag=True, help="Let negatives be triples of training.")
@click.option("--providers", "named", help="Comma-separated; default: all that run here.")
@click.option("--rounds", type=click.IntRange(min=1), default=7, show_default=True)
@click.option("--steps", type=click.IntRange(min=1), default=4, show_default=True, help="Of a provider in a round.")
@click.option("--no-memory", is_flag=True, help="Leave out peak memory.")
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write JSON Lines here.")
@click.option("--peak-of", nargs=2, hidden=True)
def main(
    dataset: str,
    root: str | None,
    entities: int | None,
    batch: int,
    draws: list[int],
    width: int,
    interaction: str,
    chunk_size: int,
    features: list[int] | None,
    unfiltered: bool,
    named: str | None,
    rounds: int,
    steps: int,
    no_memory: bool,
    json_path: Path | None,
    peak_of: tuple[str, str] | None,
) -> None:
    prefer_large_pages()
    keep_freed_memory()
    if peak_of is not None:
        provider, sizes = peak_of
        case = Case(**json.loads(sizes))
        click.echo(_peak(provider, replace(case, widths=tuple(case.widths))))
        return
    check_folder(json_path)
    widths = tuple(features or ())
    console = make_console()
    providers = choose_providers(named, PROVIDERS, _missing(widths, interaction), console)

    def measured() -> Iterator[list[dict[str, Any]]]:
        for K in draws:
            case = Case(
                *(batch, K, width, dataset, root, entities, widths, not unfiltered),
                interaction=interaction,
                chunk_size=chunk_size,
            )
            _check_size(case)
            rows = measure(case, providers, rounds, steps, peaks=not no_memory)
            show(console, rows)
            yield rows

    try:
        collect(measured(), json_path)
    except HgmmError as error:
        raise click.ClickException(str(error)) from error


def _check_size(case: Case) -> None:
    triples, _ = load_triples(case.dataset, case.root, case.entities)
    if len(triples.train) < max(case.B, GATE["B"]):
        raise click.BadParameter(
            f"must be at most the {len(triples.train)} triples of training, got {case.B}", param_hint="--batch"
        )


if __name__ == "__main__":
    main()
