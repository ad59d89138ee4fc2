"""What a model of triples needs of a schema, and the pairs of modalities that are asked of it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from hgmm.errors import ConfigError, SchemaError, unknown_name
from hgmm.graph.schema import STRUCTURE, GraphSchema

__all__ = ["check_finite", "check_schema", "read_pairs"]


def check_finite(where: str, features: Tensor) -> None:
    """Refuse rows with a number that is not finite."""
    wrong = ~features.isfinite().all(1)
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise ConfigError(
            f"{where}: must be finite, got NaN or an infinity in row {row}; mend it, or mark the entity as absent"
        )


def check_schema(schema: GraphSchema, num_entities: int) -> tuple[str, dict[str, int]]:
    """Return the node type and the widths of its modalities, without features of the structure."""
    if len(schema.ntypes) != 1 or not schema.relations:
        raise SchemaError(
            f"MMKGE, schema: a knowledge graph has one node type and named relations, got {list(schema.ntypes)} and "
            f"{len(schema.relations)} relations; name them in the schema"
        )
    if num_entities < 1:
        raise ConfigError(f"MMKGE, num_entities: must be at least 1, got {num_entities}")
    widths = schema.widths(schema.ntypes[0])
    return schema.ntypes[0], {name: width for name, width in widths.items() if name != STRUCTURE}


def read_pairs(
    names: Sequence[str], pairs: Sequence[Sequence[str]] | None
) -> tuple[tuple[str, ...], list[tuple[int, int]]]:
    """Return the modalities that are used, structure first, and the pairs as their indices."""
    chosen = [(a, b) for a in names for b in names] if pairs is None else [tuple(pair) for pair in pairs]
    for pair in chosen:
        if len(pair) != 2:
            raise ConfigError(f"MMKGE, pairs: expected (modality of the head, modality of the tail), got {pair}")
        for name in pair:
            if name not in names:
                raise ConfigError(f"MMKGE, pairs: {unknown_name('modality', name, names)}")
    used = {STRUCTURE}.union(*chosen)
    kept = tuple(name for name in names if name in used)
    return kept, [(kept.index(a), kept.index(b)) for a, b in chosen]
