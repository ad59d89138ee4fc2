"""What negative learning costs beside an epoch of GraphMNL: the time of its parts, and memory in copies of the logits.

    python -m benchmarks.negative_learning_cost --json rows.jsonl

The parts run on the logits of all nodes, as if every node were for training. The epoch is the trainer's on the full
graph with its validation pass: 60 % of the nodes are for training, 20 % for validation.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console
from torch import Tensor

from benchmarks._measure import (
    Row,
    check_folder,
    environment,
    median_seconds,
    peak_in_fresh_process,
    peak_of,
    summarise,
    write_rows,
)
from benchmarks._table import figure, make_console, make_table, print_table
from hgmm.datasets.synthetic import synthetic
from hgmm.graph import MultimodalGraph
from hgmm.graph.csc import relation_csc
from hgmm.losses import negative_learning_loss
from hgmm.models import GraphMNL
from hgmm.negative_learning import StabilityGate, arbitrate, neighbor_reference
from hgmm.settings import prefer_large_pages
from hgmm.training import NegativeConfig, NegativeLearningTask, TrainConfig, Trainer

__all__ = ["EPOCH", "OP", "PARTS", "Problem", "main", "parts", "whole"]

OP = "negative_learning_cost"
PARTS = ("reference", "arbitrate", "gate", "loss")
EPOCH = "epoch"
ETYPE = ("item", "similar", "item")
# The first epoch also allocates, and reads the structure.
WARMUP = 1
MIB = 2**20


@dataclass(frozen=True)
class Sizes:
    """Of the graph and the model: N nodes, E edges, P branches (odd), C classes, modalities of one width."""

    num_nodes: int
    num_edges: int
    branches: int
    classes: int
    in_size: int
    hidden: int

    @property
    def logits_mib(self) -> float:
        """One copy of the branches' logits."""
        return self.num_nodes * self.branches * self.classes * 4 / MIB


@dataclass(frozen=True)
class Problem:
    """Inputs of the parts."""

    graph: MultimodalGraph
    logits: Tensor
    posteriors: Tensor
    known: Tensor
    gate: StabilityGate

    @classmethod
    def of(cls, sizes: Sizes) -> Problem:
        """Draw a problem; its logits are what a model might have after some epochs."""
        graph = _graph(sizes)
        generator = torch.Generator().manual_seed(0)
        logits = torch.randn(sizes.num_nodes, sizes.branches, sizes.classes, generator=generator)
        logits += 3 * torch.nn.functional.one_hot(graph.labels, sizes.classes).unsqueeze(1)
        known = torch.zeros(sizes.num_nodes, dtype=torch.bool).index_fill_(0, graph.train_idx, True)
        gate = StabilityGate(sizes.num_nodes, node_ids=torch.arange(sizes.num_nodes), mode="soft", warmup_epochs=0)
        return cls(graph, logits.requires_grad_(), logits.mean(1).softmax(1).detach(), known, gate)


def _graph(sizes: Sizes) -> MultimodalGraph:
    widths = {f"modality{number}": sizes.in_size for number in range((sizes.branches - 1) // 2)}
    return synthetic(
        {"item": sizes.num_nodes},
        {ETYPE: sizes.num_edges},
        {"item": widths},
        classes=sizes.classes,
        split=(0.6, 0.2, 0.2),
    )


def parts(problem: Problem) -> dict[str, Callable[[], Any]]:
    """Return each part, as a training step or the end of an epoch runs it, the loss with its backward pass."""
    target, nodes = problem.graph.labels, torch.arange(len(problem.known))
    logits, fused = problem.logits, problem.logits.detach().mean(1)
    csc = relation_csc(problem.graph.g, ETYPE)
    reference = neighbor_reference(csc, problem.posteriors, target, problem.known)
    decision = arbitrate(logits, fused, target, reference=reference)
    weight = problem.gate(decision, logits, nodes, epoch=1)

    def loss() -> None:
        torch.autograd.grad(
            negative_learning_loss(logits, decision.of_dominant(logits), target, pairs=decision.pairs, weight=weight),
            logits,
        )

    return {
        "reference": lambda: neighbor_reference(csc, problem.posteriors, target, problem.known),
        "arbitrate": lambda: arbitrate(logits, fused, target, reference=reference),
        "gate": lambda: problem.gate(decision, logits, nodes, epoch=1),
        "loss": loss,
    }


def whole(problem: Problem) -> Tensor:
    """Run all parts one after the other and return the loss."""
    target, logits = problem.graph.labels, problem.logits
    reference = neighbor_reference(relation_csc(problem.graph.g, ETYPE), problem.posteriors, target, problem.known)
    decision = arbitrate(logits, problem.posteriors.log(), target, reference=reference)
    weight = problem.gate(decision, logits, torch.arange(len(target)), epoch=1)
    dominant = decision.of_dominant(logits)
    return negative_learning_loss(logits, dominant, target, pairs=decision.pairs, weight=weight)


def _epoch_seconds(sizes: Sizes, weight: float, rounds: int) -> list[float]:
    graph = _graph(sizes)
    torch.manual_seed(0)
    model = GraphMNL(graph.schema, hidden_size=sizes.hidden)
    task = NegativeLearningTask(NegativeConfig(weight=weight, gate="soft", warmup_epochs=0))
    config = TrainConfig(epochs=WARMUP + rounds, patience=0, device="cpu")
    return [entry.seconds for entry in Trainer(model, task, config).fit(graph).epochs[WARMUP:]]


def _measure(sizes: Sizes, rounds: int) -> list[dict[str, Any]]:
    peak = peak_in_fresh_process("benchmarks.negative_learning_cost", ["--peak-of", json.dumps(asdict(sizes))], "parts")
    problem = Problem.of(sizes)
    steps = parts(problem)
    seconds = {
        name: [median_seconds(steps[name], rounds=1, warmup=0) for _ in range(WARMUP + rounds)] for name in PARTS
    }
    del problem, steps
    seconds = {name: values[WARMUP:] for name, values in seconds.items()}
    seconds["parts"] = [sum(turn) for turn in zip(*seconds.values(), strict=True)]
    seconds |= {name: _epoch_seconds(sizes, weight, rounds) for name, weight in ((EPOCH, 0.0), ("epoch with", 1.0))}
    place = environment()
    return [
        Row(
            op=OP,
            provider=name,
            mode="both",
            dtype="float32",
            sizes=asdict(sizes),
            **summarise(values)._asdict(),
            peak_mib=peak if name == "parts" else None,
            warmup=WARMUP,
            rounds=rounds,
            **place,
            extra={"logits_mib": sizes.logits_mib},
        ).flat()
        for name, values in seconds.items()
    ]


def show(console: Console, rows: list[Mapping[str, Any]]) -> None:
    """Print the rows with their share of an epoch without negative learning."""
    first = rows[0]
    epoch = next(row["median_ms"] for row in rows if row["provider"] == EPOCH)
    table = make_table(
        ["part"], ["median\nms", "p20\nms", "p80\nms", "share of\nepoch", "peak\nMiB", "copies of\nlogits"]
    )
    for row in rows:
        peak = row["peak_mib"]
        copies = None if peak is None else peak / row["logits_mib"]
        cells = [row["median_ms"], row["p20_ms"], row["p80_ms"], row["median_ms"] / epoch, peak, copies]
        table.add_row(row["provider"], *map(figure, cells))
    title = f"{first['num_nodes']:,} nodes, {first['num_edges']:,} edges, {first['branches']} branches, "
    title += f"{first['classes']} classes"
    caption = f"width {first['in_size']}, hidden size {first['hidden']}; {first['device']}, {first['threads']} threads"
    print_table(console, table, title=title, caption=caption)


@click.command(help=__doc__)
@click.option("--nodes", "num_nodes", type=click.IntRange(min=100), default=100_000, show_default=True)
@click.option("--edges", "num_edges", type=click.IntRange(min=1), default=1_200_000, show_default=True)
@click.option("--branches", type=click.IntRange(min=3), default=5, show_default=True, help="Odd.")
@click.option("--classes", type=click.IntRange(min=3), default=50, show_default=True)
@click.option("--in-size", type=click.IntRange(min=1), default=128, show_default=True, help="Width of a modality.")
@click.option("--hidden", type=click.IntRange(min=1), default=64, show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write JSON Lines here.")
@click.option("--peak-of", hidden=True)
def main(rounds: int, json_path: Path | None, peak_of: str | None, **options: Any) -> None:
    prefer_large_pages()
    if peak_of is not None:
        click.echo(_peak(Sizes(**json.loads(peak_of))))
        return
    check_folder(json_path)
    if options["branches"] % 2 == 0:
        raise click.BadParameter(
            f"expected an odd number, two for each modality and one, got {options['branches']}", param_hint="--branches"
        )
    rows = _measure(Sizes(**options), rounds)
    show(make_console(), rows)
    if json_path is not None:
        write_rows(json_path, rows)


def _peak(sizes: Sizes) -> float:
    # Thread pools and lazily loaded code belong to the process, not to the step.
    small = Problem.of(Sizes(200, 400, sizes.branches, sizes.classes, 4, 4))
    whole(small).backward()
    problem = Problem.of(sizes)
    return peak_of(lambda: whole(problem))


if __name__ == "__main__":
    main()
