"""What a multimodal graph consists of: types, relations, modalities, target and classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hgmm.errors import Problem, SchemaError, raise_problems, unknown_name
from hgmm.typing import CanonicalEtype

__all__ = ["KINDS", "STRUCTURE", "GraphSchema", "ModalitySpec"]

KINDS = ("text", "image", "numeric", "categorical", "structure", "other")
STRUCTURE = "structure"
RESERVED = frozenset({"label", "train_mask", "val_mask", "test_mask", "_ID", "_TYPE", "feat"})
PRESENT_SUFFIX = "_present"


@dataclass(frozen=True)
class ModalitySpec:
    """One modality of one node type.

    Parameters
    ----------
    kind : str
        One of ``text, image, numeric, categorical, structure, other``.
    width : int
        Number of columns of the feature matrix, at least 1.
    source : str, optional
        Where the features come from, in words: a file, a column, an encoder.

    Raises
    ------
    SchemaError
        If the kind is unknown or the width is not positive.
    """

    kind: str
    width: int
    source: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise SchemaError(f"ModalitySpec kind: {unknown_name('kind', self.kind, KINDS)}")
        if not isinstance(self.width, int) or isinstance(self.width, bool) or self.width < 1:
            raise SchemaError(f"ModalitySpec width: must be a whole number of at least 1, got {self.width!r}")

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {"kind": self.kind, "width": self.width, "source": self.source}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ModalitySpec:
        """Build a modality from what `to_dict` returned.

        Raises
        ------
        SchemaError
            If a key is missing or unknown, or a value breaks a rule.
        """
        _check_keys("ModalitySpec.from_dict", data, required=("kind", "width"), optional=("source",))
        return cls(**data)


@dataclass(frozen=True)
class GraphSchema:
    """Types, relations, modalities and target of a `MultimodalGraph`; checked when it is made.

    Parameters
    ----------
    ntypes : sequence of str
        Node types.
    canonical_etypes : sequence of (str, str, str)
        Relations as DGL's ``(source ntype, etype, destination ntype)``.
    modalities : mapping of str to mapping of str to ModalitySpec
        Modalities by node type. One not listed for a type is absent for the whole type. The same name may have
        different widths, but not different kinds, at different types.
    target : str, optional
        The node type that carries labels.
    classes : sequence of str, optional
        Class names; a label is an index into them.
    relations : sequence of str, optional
        Names of a knowledge graph's relations, indexed by the edge data ``relation``.
    modality_names : sequence of str, optional
        The order of the modality axis. Default: the order of first appearance in `modalities`.

    Raises
    ------
    SchemaError
        Lists all problems found.
    """

    ntypes: tuple[str, ...]
    canonical_etypes: tuple[CanonicalEtype, ...]
    modalities: Mapping[str, Mapping[str, ModalitySpec]]
    target: str | None = None
    classes: tuple[str, ...] = ()
    relations: tuple[str, ...] = ()
    modality_names: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "ntypes", tuple(self.ntypes))
        put(self, "canonical_etypes", tuple((s, e, d) for s, e, d in self.canonical_etypes))
        put(
            self,
            "modalities",
            {ntype: dict(self.modalities.get(ntype, {})) for ntype in self.ntypes}
            | {ntype: dict(specs) for ntype, specs in self.modalities.items() if ntype not in self.ntypes},
        )
        put(self, "classes", tuple(self.classes))
        put(self, "relations", tuple(self.relations))
        found = dict.fromkeys(name for specs in self.modalities.values() for name in specs)
        put(self, "modality_names", tuple(self.modality_names) or tuple(found))
        raise_problems(self._problems(), where="GraphSchema", error=SchemaError)

    def _problems(self) -> list[Problem]:
        return [*_type_problems(self), *_modality_problems(self), *_target_problems(self)]

    @property
    def num_modalities(self) -> int:
        """Length M of the modality axis."""
        return len(self.modality_names)

    @property
    def num_classes(self) -> int:
        """Number C of classes; 0 without labels."""
        return len(self.classes)

    def widths(self, ntype: str) -> dict[str, int]:
        """Return the feature width of each modality that `ntype` has, in schema order.

        Raises
        ------
        SchemaError
            If there is no such node type.
        """
        self.check_ntype(ntype)
        specs = self.modalities[ntype]
        return {name: specs[name].width for name in self.modality_names if name in specs}

    def check_ntype(self, ntype: str) -> None:
        """Raise `SchemaError`, naming the known types, if `ntype` is none of them."""
        if ntype not in self.ntypes:
            raise SchemaError(f"GraphSchema: {unknown_name('node type', ntype, self.ntypes)}")

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; `from_dict` is its inverse."""
        return {
            "ntypes": list(self.ntypes),
            "canonical_etypes": [list(etype) for etype in self.canonical_etypes],
            "modalities": {
                ntype: {name: spec.to_dict() for name, spec in specs.items()}
                for ntype, specs in self.modalities.items()
            },
            "target": self.target,
            "classes": list(self.classes),
            "relations": list(self.relations),
            "modality_names": list(self.modality_names),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> GraphSchema:
        """Build a schema from what `to_dict` returned.

        Raises
        ------
        SchemaError
            If a key is missing or unknown, or the content breaks a rule.
        """
        required = ("ntypes", "canonical_etypes", "modalities")
        optional = ("target", "classes", "relations", "modality_names")
        _check_keys("GraphSchema.from_dict", data, required=required, optional=optional)
        return cls(
            ntypes=tuple(data["ntypes"]),
            canonical_etypes=tuple((s, e, d) for s, e, d in data["canonical_etypes"]),
            modalities={
                ntype: {name: ModalitySpec.from_dict(spec) for name, spec in specs.items()}
                for ntype, specs in data["modalities"].items()
            },
            target=data.get("target"),
            classes=tuple(data.get("classes", ())),
            relations=tuple(data.get("relations", ())),
            modality_names=tuple(data.get("modality_names", ())),
        )


def _check_keys(where: str, data: Mapping[str, Any], *, required: Sequence[str], optional: Sequence[str]) -> None:
    for key in data:
        if key not in (*required, *optional):
            raise SchemaError(f"{where}: {unknown_name('key', key, (*required, *optional))}")
    for key in required:
        if key not in data:
            raise SchemaError(f"{where}: key {key!r} is missing; found: {', '.join(sorted(data))}")


def _repeated(names: Iterable[Any]) -> list[Any]:
    return [name for name, count in Counter(names).items() if count > 1]


def _type_problems(schema: GraphSchema) -> list[Problem]:
    problems = []
    if not schema.ntypes:
        problems.append(Problem("no node type", "ntypes", "a graph needs at least one node type"))
    for what, names in (("ntypes", schema.ntypes), ("canonical_etypes", schema.canonical_etypes)):
        problems += [Problem("duplicate name", what, f"{name!r} appears twice") for name in _repeated(names)]
    for etype in schema.canonical_etypes:
        for end in (etype[0], etype[2]):
            if end not in schema.ntypes:
                known = unknown_name("node type", end, schema.ntypes)
                problems.append(Problem("unknown node type", f"edge type {etype!r}", known))
    return problems


def _modality_problems(schema: GraphSchema) -> list[Problem]:
    problems = []
    kinds: dict[str, tuple[str, str]] = {}
    for ntype, specs in schema.modalities.items():
        if ntype not in schema.ntypes:
            problems.append(Problem("unknown node type", "modalities", unknown_name("node type", ntype, schema.ntypes)))
        for name, spec in specs.items():
            where = f"modality {name!r} of node type {ntype!r}"
            if name in RESERVED or name.endswith(PRESENT_SUFFIX) or not name:
                rule = f"the name is reserved; choose one that is not in {sorted(RESERVED)}, nor ends in _present"
                problems.append(Problem("reserved name", where, rule))
            first, kind = kinds.setdefault(name, (ntype, spec.kind))
            if kind != spec.kind:
                text = f"its kind is {spec.kind!r} here and {kind!r} at {first!r}; rename one of them"
                problems.append(Problem("two kinds", where, text))
    missing = [name for name in kinds if name not in schema.modality_names]
    problems += [Problem("modality order", "modality_names", f"{name!r} is missing") for name in missing]
    problems += [Problem("duplicate name", "modality_names", repr(name)) for name in _repeated(schema.modality_names)]
    return problems


def _target_problems(schema: GraphSchema) -> list[Problem]:
    problems = []
    if schema.target is not None and schema.target not in schema.ntypes:
        known = unknown_name("node type", schema.target, schema.ntypes)
        problems.append(Problem("unknown node type", "target", known))
    problems += [Problem("duplicate name", "classes", f"{name!r} appears twice") for name in _repeated(schema.classes)]
    if schema.classes and schema.target is None:
        problems.append(Problem("no target", "classes", "class names need a target node type"))
    return problems
