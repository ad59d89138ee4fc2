"""What an epoch is measured on, and the providers that compute it: graph, labels, weights, one training step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any, NamedTuple, Protocol

import click
import numpy as np
import torch
from torch import Tensor, nn

from benchmarks._operators import missing_backend, own_backend
from benchmarks.official_style import OfficialStyleHGNNIMA
from hgmm import datasets
from hgmm.dgl_compat import dgl
from hgmm.graph import DataSource, GraphSchema, ModalitySpec, MultimodalGraph
from hgmm.models.official import hgnn_ima_from_state_dict
from hgmm.settings import using_backend
from hgmm.typing import CanonicalEtype

__all__ = [
    "BASELINE",
    "CANONICAL_ETYPES",
    "DATASETS",
    "DEGREES",
    "GATE_EDGES",
    "PROVIDERS",
    "EpochConfig",
    "Problem",
    "Provider",
    "chosen_backend",
    "gate_losses",
    "initial_weights",
    "make_problem",
    "make_step",
]

DATASETS = ("synthetic", "amazon")
DEGREES = ("uniform", "zipf")
TARGET = "item"
CANONICAL_ETYPES: tuple[CanonicalEtype, ...] = (
    ("item", "has_tag", "tag"),
    ("tag", "tag_of", "item"),
    ("item", "seen_by", "user"),
    ("user", "sees", "item"),
)
MODALITIES = ("text", "image", "numeric")
VARIANT_BY_MODALITIES = {2: "modal2_align", 3: "modal3_align"}
EDGES_PER_NODE = 10
BASELINE = "official-style"
GATE_EDGES = 400
# What cross_entropy leaves out.
NOT_TRAINED = -100


@dataclass(frozen=True)
class EpochConfig:
    """Sizes of one case; those from `edges` on are the synthetic graph's, and a data set brings its own."""

    hidden: int
    heads: int
    layers: int
    dataset: str = "synthetic"
    data_root: str | None = None
    device: str = "cpu"
    seed: int = 0
    edges: int = 100_000
    modalities: int = 2
    degrees: str = "uniform"
    in_size: int = 64
    classes: int = 3


class Problem(NamedTuple):
    """What all providers are given.

    Attributes
    ----------
    graph : MultimodalGraph
        On the CPU; features in its frames.
    variant : str
        The released module that all compute.
    labels : Tensor
        (N_target,) int64 on the device; -100 where a node is not trained on.
    """

    graph: MultimodalGraph
    variant: str
    labels: Tensor

    @property
    def in_size(self) -> int:
        """Width of the features, which is the same for all of them."""
        schema = self.graph.schema
        widths = {width for ntype in schema.ntypes for width in schema.widths(ntype).values()}
        if len(widths) != 1:
            raise click.ClickException(
                f"dataset {self.graph.name}: all features must be equally wide, as the released modules have them, got "
                f"{sorted(widths)}; take other files"
            )
        return int(widths.pop())

    def sizes(self, config: EpochConfig) -> dict[str, Any]:
        """Return what a row says of the case."""
        schema, g = self.graph.schema, self.graph.g
        return {
            "dataset": config.dataset,
            "source": self.graph.source.source,
            "num_edges": int(g.num_edges()),
            "num_nodes": int(g.num_nodes()),
            "degrees": config.degrees if config.dataset == "synthetic" else "of the data set",
            "M": schema.num_modalities,
            "H": config.heads,
            "D": config.hidden // config.heads,
            "layers": config.layers,
            "in_size": self.in_size,
            "classes": schema.num_classes,
            "variant": self.variant,
            "seed": config.seed,
        }


class Output(Protocol):
    """What a provider's forward returns: the fused logits (n, C) and those of each modality (n, M, C)."""

    @property
    def logits(self) -> Tensor: ...

    @property
    def branch_logits(self) -> Tensor | None: ...


class Provider(NamedTuple):
    """A way to compute the step.

    Attributes
    ----------
    module : str
        Where it lives; the provider is missing if this cannot be found.
    build : callable
        Maps problem, weights under the official names, and sizes to a module and its forward.
    backend : str, optional
        The ``HGMM_BACKEND`` of its forward pass.
    """

    module: str
    build: Callable[[Problem, Mapping[str, Tensor], EpochConfig], tuple[nn.Module, Callable[[], Output]]]
    backend: str | None = None

    def missing(self, device: str) -> str | None:
        """Return why the provider cannot run on a device, None if it can."""
        try:
            found = find_spec(self.module) is not None
        except ModuleNotFoundError:
            found = False
        if not found:
            return f"needs the module {self.module}, which is not installed"
        return "does not run on cuda: DGL from PyPI has no CUDA" if self.backend is None and device != "cpu" else None


def make_problem(config: EpochConfig, dtype: torch.dtype = torch.float32) -> Problem:
    """Draw the synthetic graph, or load a data set."""
    if config.dataset == "synthetic":
        graph, variant = _synthetic(config), VARIANT_BY_MODALITIES[config.modalities]
        labels = graph.labels
    else:
        graph = datasets.load(config.dataset, root=config.data_root)
        variant = str(datasets.info(config.dataset).published_variant)
        nodes = graph.train_idx
        labels = torch.full_like(graph.labels, NOT_TRAINED).index_copy(0, nodes, graph.labels[nodes])
    for ntype in graph.schema.ntypes:
        frame = graph.g.nodes[ntype].data
        for name in graph.schema.widths(ntype):
            frame[name] = frame[name].to(dtype)
    return Problem(graph, variant, labels.to(config.device))


def _synthetic(config: EpochConfig) -> MultimodalGraph:
    """Draw a graph with ``edges / 10`` nodes, features and labels; edges are split evenly over four relations.

    In-degrees are those of uniform draws, or (``zipf``) of draws with probability proportional to 1 / rank.
    """
    generator = np.random.default_rng(config.seed)
    ntypes = sorted({etype[0] for etype in CANONICAL_ETYPES})
    num_nodes = max(2, config.edges // (EDGES_PER_NODE * len(ntypes)))
    num_edges = config.edges // len(CANONICAL_ETYPES)
    edges = {}
    for etype in CANONICAL_ETYPES:
        chances = np.ones(num_nodes)
        if config.degrees == "zipf":
            chances = generator.permutation(1.0 / np.arange(1, num_nodes + 1))
        dst = generator.choice(num_nodes, num_edges, p=chances / chances.sum())
        src = generator.integers(0, num_nodes, num_edges)
        edges[etype] = (torch.from_numpy(src), torch.from_numpy(dst))
    names = MODALITIES[: config.modalities]
    g = dgl.heterograph(edges, num_nodes_dict=dict.fromkeys(ntypes, num_nodes))
    for ntype in ntypes:
        for name in names:
            values = generator.standard_normal((num_nodes, config.in_size), dtype=np.float32)
            g.nodes[ntype].data[name] = torch.from_numpy(values)
    g.nodes[TARGET].data["label"] = torch.from_numpy(generator.integers(0, config.classes, num_nodes))
    schema = GraphSchema(
        ntypes=tuple(ntypes),
        canonical_etypes=tuple(g.canonical_etypes),
        modalities={ntype: {name: ModalitySpec(name, config.in_size) for name in names} for ntype in ntypes},
        target=TARGET,
        classes=tuple(str(label) for label in range(config.classes)),
    )
    return MultimodalGraph(g, schema, source=DataSource("synthetic"), name="synthetic")


def _dense(graph: MultimodalGraph) -> dict[str, Tensor]:
    """Return the features as the released code has them: (N, M, in_size) by node type, zeros where absent."""
    dense = {}
    for ntype in graph.schema.ntypes:
        frame, present = graph.g.nodes[ntype].data, graph.present(ntype)
        widths = graph.schema.widths(ntype)
        some = frame[next(iter(widths))]
        blocks = [frame[name] if name in widths else torch.zeros_like(some) for name in graph.schema.modality_names]
        dense[ntype] = torch.stack(blocks, 1) * present.unsqueeze(-1)
    return dense


def _official_style_model(problem: Problem, config: EpochConfig) -> OfficialStyleHGNNIMA:
    schema = problem.graph.schema
    return OfficialStyleHGNNIMA(
        schema.ntypes,
        schema.canonical_etypes,
        variant=problem.variant,
        target=str(schema.target),
        in_size=problem.in_size,
        hidden_size=config.hidden,
        num_classes=schema.num_classes,
        num_heads=config.heads,
        num_layers=config.layers,
    )


def initial_weights(problem: Problem, config: EpochConfig) -> dict[str, Tensor]:
    """Draw the weights that all providers start from, under the official names."""
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        return _official_style_model(problem, config).state_dict()


def _build_official_style(
    problem: Problem, weights: Mapping[str, Tensor], config: EpochConfig
) -> tuple[nn.Module, Callable[[], Output]]:
    features = _dense(problem.graph)
    model = _official_style_model(problem, config).to(next(iter(weights.values())).dtype)
    model.load_state_dict(dict(weights))
    return model, lambda: model(problem.graph.g, features)


def _build_hgmm(
    problem: Problem, weights: Mapping[str, Tensor], config: EpochConfig
) -> tuple[nn.Module, Callable[[], Output]]:
    model = hgnn_ima_from_state_dict(dict(weights), problem.graph, problem.variant).to(config.device)
    return model, lambda: model(problem.graph.g)


PROVIDERS: dict[str, Provider] = {
    "hgmm": Provider("hgmm.models.official", _build_hgmm, "auto"),
    "hgmm-reference": Provider("hgmm.models.official", _build_hgmm, "reference"),
    BASELINE: Provider("benchmarks.official_style", _build_official_style),
}


def chosen_backend(provider: str, device: str) -> str | None:
    """Return the kernels that a provider runs on, None if it has none of hgmm's."""
    wanted = PROVIDERS[provider].backend
    if wanted != "auto":
        return wanted
    own = own_backend(device)
    return own if missing_backend(own, "cross_modal_attention", device) is None else "reference"


def _loss(output: Output, labels: Tensor) -> Tensor:
    parts = [output.logits]
    if output.branch_logits is not None:
        parts += list(output.branch_logits.unbind(1))
    return torch.stack([nn.functional.cross_entropy(part, labels, ignore_index=NOT_TRAINED) for part in parts]).mean()


def _compute(name: str, forward: Callable[[], Output], labels: Tensor) -> Tensor:
    wanted = PROVIDERS[name].backend
    with nullcontext() if wanted is None else using_backend(wanted):
        return _loss(forward(), labels)


def make_step(name: str, problem: Problem, weights: Mapping[str, Tensor], config: EpochConfig) -> Callable[[], Tensor]:
    """Return a function that clears the gradients and gives the loss of a training step."""
    model, forward = PROVIDERS[name].build(problem, weights, config)
    model.train()

    def step() -> Tensor:
        model.zero_grad(set_to_none=True)
        return _compute(name, forward, problem.labels)

    return step


def gate_losses(names: list[str], config: EpochConfig) -> dict[str, float]:
    """Give every provider's loss in float64 without dropout, on a small synthetic graph or the data set itself."""
    small = replace(config, edges=GATE_EDGES)
    problem = make_problem(small, torch.float64)
    weights = {key: value.double() for key, value in initial_weights(problem, small).items()}
    losses = {}
    for name in names:
        # The baseline takes part in every gate, and has to be on the CPU.
        device = "cpu" if name == BASELINE else config.device
        own = problem._replace(labels=problem.labels.to(device))
        model, forward = PROVIDERS[name].build(own, weights, replace(small, device=device))
        model.eval()
        with torch.no_grad():
            losses[name] = _compute(name, forward, own.labels).item()
    return losses
