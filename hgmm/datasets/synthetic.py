"""Generated multimodal heterographs: planted classes, unreliable and missing modalities, skewed degrees, any size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hgmm.datasets.base import Dataset, DatasetInfo, register
from hgmm.datasets.planted import (
    LATENT_SIZE,
    FloatArray,
    IntArray,
    planted_classes,
    planted_edges,
    planted_features,
    planted_imbalance,
)
from hgmm.dgl_compat import dgl
from hgmm.errors import ConfigError, DataError, unknown_name
from hgmm.graph import DataSource, GraphSchema, ModalitySpec, MultimodalGraph
from hgmm.graph.schema import KINDS, PRESENT_SUFFIX
from hgmm.typing import CanonicalEtype

__all__ = ["RELIABILITY_SUFFIX", "SyntheticDataset", "refuse_official", "synthetic"]

RELIABILITY_SUFFIX = "_reliability"

NODES = {"item": 1200, "user": 800, "tag": 60}
EDGES = {("item", "similar", "item"): 3000, ("user", "rates", "item"): 9000, ("item", "has", "tag"): 3600}
MODALITIES = {"item": {"text": 64, "image": 48}, "user": {"text": 64}, "tag": {"text": 64}}


def synthetic(
    nodes: Mapping[str, int] | None = None,
    edges: Mapping[CanonicalEtype, int] | None = None,
    modalities: Mapping[str, Mapping[str, int]] | None = None,
    *,
    target: str = "item",
    classes: int | Mapping[str, int] = 4,
    reliability: float | Mapping[str, float] = 0.7,
    noise: float = 1.0,
    missing: float | Mapping[str, float] = 0.0,
    imbalance: float = 0.0,
    imbalance_strength: float = 1.0,
    homophily: float | Mapping[str, float] = 0.7,
    degree_exponent: float | Mapping[str, float] = 2.3,
    degrees: Mapping[str, int] | None = None,
    split: Sequence[float] = (0.2, 0.1, 0.7),
    seed: int = 0,
    name: str = "synthetic",
    source: DataSource | None = None,
) -> MultimodalGraph:
    """Generate a graph in which every node has a class that features and edges tell more or less reliably.

    Parameters
    ----------
    nodes : mapping of str to int, optional
        Number of nodes by node type.
    edges : mapping of (str, str, str) to int, optional
        Number of distinct edges by relation. A relation ``(a, e, b)`` with ``a != b`` gets the reverse
        ``(b, rev_e, a)``, unless the mapping holds a relation ``(b, …, a)`` with the same number of edges: this one
        then is the reverse. Relations inside a type are symmetric, so their numbers must be even.
    modalities : mapping of str to mapping of str to int, optional
        Feature width by node type and modality; one that is not listed for a type is absent there. A type without any
        gets ``structure``.
    target : str, optional
        The node type with labels.
    classes : int or mapping of str to int, optional
        Number of classes, all equally large, or how many target nodes each named class has.
    reliability : float or mapping of str to float, optional
        From 0 to 1, by modality: the mean share of the own class in a node's features; the rest is another class.
        Every node has its own, in ``data["<modality>_reliability"]``. A modality not named has 0.7.
    noise : float, optional
        Standard deviation of the noise on the features; class prototypes have 1.
    missing : float or mapping of str to float, optional
        From 0 up to, not including, 1, by modality: share of the nodes that lack it, drawn at random. Their features
        are zero. A modality not named is complete.
    imbalance : float, optional
        Share, from 0 to 1, of the nodes at which one modality is informative and another one misleading, both drawn
        at random among those that the node type has; types with fewer than two are left alone. See Notes.
    imbalance_strength : float, optional
        Above 0.5 up to 1: at these nodes the share of the own class in the informative modality, and of a wrong class
        in the misleading one. It takes the place of `reliability` in these two.
    homophily : float or mapping of str to float, optional
        From 0 to 1, by edge type: probability that an edge is drawn inside a class; otherwise it leads anywhere. An
        edge type not named has 0.7.
    degree_exponent : float or mapping of str to float, optional
        Above 1, by edge type: exponent of the power law of the degrees. An edge type not named has 2.3.
    degrees : mapping of str to int, optional
        By edge type between two node types: every source has this many edges, except for the random few that the
        number in `edges` leaves out.
    split : sequence of float or int, optional
        Training, validation and test part of the target nodes: shares of at most 1 in all, or whole numbers.
    seed : int, optional
        Equal arguments and seeds give equal graphs.
    name : str, optional
        Name of the graph.
    source : DataSource, optional
        Where the graph is said to come from. Default: ``synthetic``, with a note.

    Returns
    -------
    MultimodalGraph
        With labels, splits, and presence masks where modalities are missing at some nodes.

    Raises
    ------
    ConfigError
        If an argument is out of range, names something unknown, or the edges do not fit.

    Notes
    -----
    Vectorised: a million edges take a few seconds. The construction is ours.

    With classes of equal size, a misleading modality is distributed as an informative one of the class that it tells:
    nothing in its features gives it away, only the other modalities and the neighbours do. If `reliability` is 1 and
    `imbalance_strength` too, it cannot be told from those of the nodes without imbalance either. A misleading modality
    has a reliability below 0.5 in ``data["<modality>_reliability"]``. `missing` strikes informative and misleading
    modalities alike.

    Examples
    --------
    >>> graph = synthetic(missing={"image": 0.5}, seed=1)
    >>> round(graph.present("item")[:, 1].float().mean().item(), 1)
    0.5
    """
    nodes = NODES if nodes is None else nodes
    edges = EDGES if edges is None else edges
    widths = MODALITIES if modalities is None else modalities
    names = tuple(dict.fromkeys(modality for specs in widths.values() for modality in specs))
    etypes = tuple(etype[1] for etype in edges)
    trust = _shares("reliability", reliability, names, default=0.7)
    lacking = _shares("missing", missing, names, default=0.0)
    exponents = _table("degree_exponent", degree_exponent, etypes, default=2.3)
    affinity = _shares("homophily", homophily, etypes, default=0.7)
    _check_names(nodes, edges, widths, target=target, degrees=degrees or {})
    if not 0.0 <= noise < math.inf:
        raise ConfigError(f"synthetic noise: must be at least 0 and finite, got {noise}")
    if seed < 0:
        raise ConfigError(f"synthetic seed: must be at least 0, got {seed}")
    labelled = _class_counts(classes, nodes[target])
    _check_imbalance(imbalance, imbalance_strength, widths, num_classes=len(labelled))
    rng = np.random.default_rng(seed)
    counts = list(labelled.values())
    planted = {t: planted_classes(counts if t == target else _even(len(counts), n), rng) for t, n in nodes.items()}
    ends = _edges(planted, edges, homophily=affinity, exponents=exponents, degrees=degrees or {}, rng=rng)
    g = dgl.heterograph(
        {etype: (torch.from_numpy(src), torch.from_numpy(dst)) for etype, (src, dst) in ends.items()},
        num_nodes_dict=dict(nodes),
    )
    uneven = {
        ntype: planted_imbalance(nodes[ntype], len(specs), share=imbalance, strength=imbalance_strength, rng=rng)
        for ntype, specs in widths.items()
        if imbalance and len(specs) > 1
    }
    _put_features(g, planted, widths, reliability=trust, uneven=uneven, missing=lacking, noise=noise, rng=rng)
    _put_labels(g.nodes[target].data, planted[target], split, rng)
    specs = {ntype: {m: _spec(m, width) for m, width in given.items()} for ntype, given in widths.items()}
    schema = GraphSchema(tuple(nodes), tuple(ends), specs, target=target, classes=tuple(labelled), modality_names=names)
    said = source or DataSource("synthetic", note=f"generated data (seed {seed}): scores say nothing about real data")
    return MultimodalGraph(g, schema, source=said, name=name)


@register
class SyntheticDataset(Dataset):
    """The generated graph with its default arguments."""

    info = DatasetInfo(
        name="synthetic",
        title="Generated items, users and tags",
        description=(
            "Planted classes that two unreliable modalities and homophilous edges tell; hgmm.datasets.synthetic makes "
            "such graphs of any size."
        ),
        target="item",
        licence="none needed: generated",
        citation="hgmm",
        published={**NODES, "classes": 4, "class_counts": [300, 300, 300, 300], "split_sizes": [240, 120, 840]},
        ntypes=tuple(NODES),
    )

    def load(self, root: Path, *, require_official: bool = False) -> MultimodalGraph:
        """Generate the graph; `root` changes nothing, for there are no files.

        Raises
        ------
        DataError
            If `require_official` is set.
        """
        refuse_official(self.info.name, require_official)
        return synthetic()


def refuse_official(name: str, required: bool) -> None:
    """Raise `DataError` if official data is required of a generated dataset."""
    if required:
        raise DataError(
            f"dataset {name}: its data is generated and never official, but require_official is set (on the command "
            "line --require-official); leave it out, or name a published data set"
        )


def _table(what: str, value: float | Mapping[str, float], names: Sequence[str], *, default: float) -> dict[str, float]:
    given = dict.fromkeys(names, float(value)) if isinstance(value, int | float) else dict(value)
    for key in given:
        if key not in names:
            raise ConfigError(f"synthetic {what}: {unknown_name('name', key, names)}")
    return {key: given.get(key, default) for key in names}


def _shares(what: str, value: float | Mapping[str, float], names: Sequence[str], *, default: float) -> dict[str, float]:
    table = _table(what, value, names, default=default)
    for key, share in table.items():
        if not 0.0 <= share <= 1.0 or (what == "missing" and share == 1.0):
            rule = "from 0 up to, but not, 1 (else leave the modality out)" if what == "missing" else "from 0 to 1"
            raise ConfigError(f"synthetic {what}: {key!r} must be {rule}, got {share}")
    return table


def _check_names(
    nodes: Mapping[str, int],
    edges: Mapping[CanonicalEtype, int],
    modalities: Mapping[str, Mapping[str, int]],
    *,
    target: str,
    degrees: Mapping[str, int],
) -> None:
    sizes = [("nodes", n, count, 0) for n, count in nodes.items()]
    sizes += [("modalities", m, width, 1) for specs in modalities.values() for m, width in specs.items()]
    for what, name, size, least in sizes:
        if not isinstance(size, int | np.integer) or size < least:
            raise ConfigError(f"synthetic {what}: {name!r} must be a whole number of at least {least}, got {size!r}")
    if not edges:
        raise ConfigError("synthetic edges: must hold at least one relation, got {}; DGL has no graph without any")
    ends = [("edges", end) for src, _, dst in edges for end in (src, dst)]
    for what, ntype in [("target", target), *ends, *(("modalities", ntype) for ntype in modalities)]:
        if ntype not in nodes:
            raise ConfigError(f"synthetic {what}: {unknown_name('node type', ntype, nodes)}")
    across = [etype[1] for etype in edges if etype[0] != etype[2]]
    for name in degrees:
        if name not in across:
            raise ConfigError(f"synthetic degrees: {unknown_name('edge type between two node types', name, across)}")


def _check_imbalance(
    share: float, strength: float, modalities: Mapping[str, Mapping[str, int]], *, num_classes: int
) -> None:
    if not 0.0 <= share <= 1.0:
        raise ConfigError(f"synthetic imbalance: must be from 0 to 1, got {share}")
    if not 0.5 < strength <= 1.0:
        raise ConfigError(f"synthetic imbalance_strength: must be above 0.5 up to 1, got {strength}")
    most = max(map(len, modalities.values()), default=0)
    if share and (most < 2 or num_classes < 2):
        raise ConfigError(
            f"synthetic imbalance: needs a node type with two modalities and at least two classes, got {most} and "
            f"{num_classes}; leave it out"
        )


def _class_counts(classes: int | Mapping[str, int], num_nodes: int) -> dict[str, int]:
    if isinstance(classes, int):
        if classes < 1:
            raise ConfigError(f"synthetic classes: must be at least 1, got {classes}")
        return {str(number): count for number, count in enumerate(_even(classes, num_nodes))}
    if sum(classes.values()) != num_nodes or min(classes.values(), default=-1) < 0:
        raise ConfigError(
            f"synthetic classes: {dict(classes)} sum to {sum(classes.values())}, and there are {num_nodes} target "
            "nodes; make them equal"
        )
    return dict(classes)


def _even(parts: int, total: int) -> list[int]:
    return [total // parts + (part < total % parts) for part in range(parts)]


def _pairs(edges: Mapping[CanonicalEtype, int]) -> Iterator[tuple[CanonicalEtype, int, CanonicalEtype | None]]:
    """Yield each relation to draw, its size, and the relation that is its reverse and not drawn."""
    done: set[CanonicalEtype] = set()
    for etype, num_edges in edges.items():
        src, name, dst = etype
        if etype in done:
            continue
        if src == dst:
            yield etype, num_edges, None
            continue
        given = (other for other in edges if other not in done and (other[0], other[2]) == (dst, src))
        reverse = next((other for other in given if edges[other] == num_edges), (dst, f"rev_{name}", src))
        if edges.get(reverse, num_edges) != num_edges:
            raise ConfigError(
                f"synthetic edges: {reverse!r} must have as many edges as {etype!r}, whose reverse it is, got "
                f"{edges[reverse]} and {num_edges}; give it another name"
            )
        done |= {etype, reverse}
        yield etype, num_edges, reverse


def _edges(
    classes: Mapping[str, IntArray],
    edges: Mapping[CanonicalEtype, int],
    *,
    homophily: Mapping[str, float],
    exponents: Mapping[str, float],
    degrees: Mapping[str, int],
    rng: np.random.Generator,
) -> dict[CanonicalEtype, tuple[IntArray, IntArray]]:
    ends: dict[CanonicalEtype, tuple[IntArray, IntArray]] = {}
    for etype, num_edges, reverse in _pairs(edges):
        if reverse is None and num_edges % 2:
            raise ConfigError(
                f"synthetic edges: {etype[1]!r} is symmetric, so its number of edges must be even, got {num_edges}"
            )
        src, dst = planted_edges(
            classes[etype[0]],
            classes[etype[2]],
            num_edges if reverse else num_edges // 2,
            homophily=homophily[etype[1]],
            exponent=exponents[etype[1]],
            rng=rng,
            degree=degrees.get(etype[1]),
            undirected=reverse is None,
        )
        if reverse is None:
            ends[etype] = np.concatenate([src, dst]), np.concatenate([dst, src])
        else:
            ends[etype], ends[reverse] = (src, dst), (dst, src)
    return ends


def _spec(modality: str, width: int) -> ModalitySpec:
    return ModalitySpec(modality if modality in KINDS else "other", width, "generated")


def _put_features(
    g: Any,
    classes: Mapping[str, IntArray],
    widths: Mapping[str, Mapping[str, int]],
    *,
    reliability: Mapping[str, float],
    uneven: Mapping[str, FloatArray],
    missing: Mapping[str, float],
    noise: float,
    rng: np.random.Generator,
) -> None:
    num_classes = 1 + max((int(planted.max(initial=0)) for planted in classes.values()), default=0)
    shape = (num_classes, LATENT_SIZE)
    prototypes = {modality: rng.standard_normal(shape, dtype=np.float32) for modality in reliability}
    for ntype, specs in widths.items():
        data = g.nodes[ntype].data
        for number, (modality, width) in enumerate(specs.items()):
            values, trust = planted_features(
                classes[ntype],
                prototypes[modality],
                width,
                reliability=reliability[modality],
                noise=noise,
                rng=rng,
                given=uneven[ntype][number] if ntype in uneven else None,
            )
            if missing[modality]:
                present = rng.random(len(values)) >= missing[modality]
                values[~present] = 0.0
                data[modality + PRESENT_SUFFIX] = torch.from_numpy(present)
            data[modality] = torch.from_numpy(values)
            data[modality + RELIABILITY_SUFFIX] = torch.from_numpy(trust)


def _put_labels(
    data: MutableMapping[str, torch.Tensor], labels: IntArray, split: Sequence[float], rng: np.random.Generator
) -> None:
    total = len(labels)
    whole = all(isinstance(part, int | np.integer) for part in split)
    if len(split) != 3 or not all(part >= 0 for part in split) or sum(split) > (total if whole else 1 + 1e-9):
        raise ConfigError(
            f"synthetic split: must be three whole numbers of at most {total} in all, or three shares of at most 1 in "
            f"all, got {tuple(split)}"
        )
    sizes = [int(part) if whole else int(part * total + 1e-9) for part in split]
    data["label"] = torch.from_numpy(labels)
    order = rng.permutation(total)
    for name, chosen in zip(("train", "val", "test"), np.split(order, np.cumsum(sizes)), strict=False):
        mask = np.zeros(total, dtype=np.bool_)
        mask[chosen] = True
        data[f"{name}_mask"] = torch.from_numpy(mask)
