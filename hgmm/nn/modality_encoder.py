"""From the features of each node type and modality to hidden states of one size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hgmm.errors import ConfigError, SchemaError, ShapeError, unknown_name
from hgmm.graph.schema import GraphSchema
from hgmm.nn._conv import ACTIVATIONS
from hgmm.nn._names import node_key
from hgmm.typing import NodeDict

__all__ = ["INPUT_NORMS", "ModalityEncoder"]

INPUT_NORMS = ("none", "batch", "layer")
_COPY = "copy:"


class ModalityEncoder(nn.Module):
    """Map ``{ntype: {modality: (N, width)}}`` to ``{ntype: (N, M, F)}``.

    Each feature matrix goes through input norm, dropout, Linear, optional LayerNorm, activation and dropout.

    Parameters
    ----------
    widths : GraphSchema or mapping of str to mapping of str to int
        Feature width by node type and modality.
    out_size : int
        F.
    modality_names : sequence of str, optional
        The order of the modality axis. Default: the schema's, or that of first appearance.
    shared : bool, optional
        One encoder a node type, shared by its modalities (narrower ones use its first columns), instead of one a node
        type and modality. No input norm then.
    input_norm : str or sequence of str, optional
        ``none``, ``batch`` or ``layer``, for all modalities or one by one.
    output_norm : bool, optional
        LayerNorm before the activation.
    activation : str, optional
        ``none``, ``gelu``, ``relu`` or ``tanh``.
    dropout, input_dropout : float, optional
        After the activation, and before the Linear.
    fill : str, optional
        What stands for features that are not there. None: nothing, the row of the result is zero. ``zeros``: encoded
        zeros. ``copy:NAME``: the node's features of modality NAME, zeros if it has none of the width.

    Raises
    ------
    ConfigError
        A choice is unknown.
    SchemaError
        `fill` names an unknown modality, or there is no modality.

    References
    ----------
    The fills, the shared and the batch-normalised encoders are those of HGNN-IMA's released modules; the rest is ours.
    """

    def __init__(
        self,
        widths: GraphSchema | Mapping[str, Mapping[str, int]],
        out_size: int,
        *,
        modality_names: Sequence[str] | None = None,
        shared: bool = False,
        input_norm: str | Sequence[str] = "batch",
        output_norm: bool = True,
        activation: str = "gelu",
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        fill: str | None = None,
    ) -> None:
        super().__init__()
        if isinstance(widths, GraphSchema):
            modality_names = modality_names or widths.modality_names
            widths = {ntype: widths.widths(ntype) for ntype in widths.ntypes}
        names = tuple(modality_names or dict.fromkeys(name for found in widths.values() for name in found))
        norms = (input_norm,) * len(names) if isinstance(input_norm, str) else tuple(input_norm)
        _check_options(names, norms, activation, fill)
        self.widths = {ntype: dict(found) for ntype, found in widths.items()}
        self.modality_names = names
        self.out_size = out_size
        self.shared = shared
        self.fill = fill
        self.encoders = nn.ModuleDict()
        for ntype in self.widths:
            expected = {name: self._input_width(ntype, name) for name in names}
            sizes = {name: width for name, width in expected.items() if width}
            if shared:
                sizes = {"": max(sizes.values())}
            self.encoders[node_key(ntype)] = nn.ModuleDict(
                {
                    node_key(name): _Encoder(
                        width,
                        out_size,
                        input_norm="none" if shared else norms[names.index(name)],
                        output_norm=output_norm,
                        activation=activation,
                        dropout=dropout,
                        input_dropout=input_dropout,
                    )
                    for name, width in sizes.items()
                }
            )

    def _input_width(self, ntype: str, modality: str) -> int:
        """Return the width of what is encoded as a modality of a type; 0 if nothing is."""
        own = self.widths[ntype]
        if modality in own or self.fill is None:
            return own.get(modality, 0)
        copied = own.get(self.fill.removeprefix(_COPY))
        if copied is not None:
            return copied
        elsewhere = [widths[modality] for widths in self.widths.values() if modality in widths]
        return (elsewhere or [max(own.values(), default=1)])[0]

    def forward(
        self, features: Mapping[str, Mapping[str, Tensor]], present: Mapping[str, Tensor] | None = None
    ) -> NodeDict:
        """Encode the features of some or all node types.

        Parameters
        ----------
        features : mapping of str to mapping of str to Tensor
            ``(N, width)`` by node type and modality.
        present : mapping of str to Tensor, optional
            ``(N, M)`` bool by node type. Default: a type's nodes have the modalities that `features` has for it.

        Returns
        -------
        dict of str to Tensor
            ``(N, M, F)`` by node type.

        Raises
        ------
        SchemaError
            Unknown node type, or a modality that the type should have is missing.
        ShapeError
            A matrix has the wrong width or number of rows.
        """
        result = {}
        for ntype, own in features.items():
            self._check(ntype, own)
            mask = None if present is None else present[ntype]
            rows = next(iter(own.values())).shape[0] if own else (0 if mask is None else mask.shape[0])
            columns = [
                self._encode(ntype, name, own, rows, None if mask is None else mask[:, m])
                for m, name in enumerate(self.modality_names)
            ]
            result[ntype] = torch.stack(columns, dim=1)
        return result

    def _encode(
        self, ntype: str, modality: str, own: Mapping[str, Tensor], rows: int, present: Tensor | None
    ) -> Tensor:
        weight = next(self.parameters())
        x = own.get(modality)
        if x is None and self.fill is None:
            return weight.new_zeros(rows, self.out_size)
        encoders = cast(nn.ModuleDict, self.encoders[node_key(ntype)])
        encoder = cast(_Encoder, encoders[node_key("" if self.shared else modality)])
        if x is None:
            return encoder(self._filled(ntype, modality, own, rows).to(weight))  # type: ignore[no-any-return]
        x = x.to(weight)
        if present is None or bool(present.all()):
            return encoder(x)  # type: ignore[no-any-return]
        if self.fill is not None:
            return encoder(torch.where(present.unsqueeze(1), x, self._filled(ntype, modality, own, rows).to(weight)))  # type: ignore[no-any-return]
        # Only rows that are there are encoded, so that the others do not enter a batch norm's statistics.
        chosen = present.nonzero().squeeze(1)
        return weight.new_zeros(rows, self.out_size).index_copy(0, chosen, encoder(x[chosen]))

    def _filled(self, ntype: str, modality: str, own: Mapping[str, Tensor], rows: int) -> Tensor:
        width = self._input_width(ntype, modality)
        copied = own.get((self.fill or "").removeprefix(_COPY))
        if copied is not None and copied.shape[1] == width:
            return copied
        return next(self.parameters()).new_zeros(rows, width)

    def _check(self, ntype: str, own: Mapping[str, Tensor]) -> None:
        if ntype not in self.widths:
            raise SchemaError(f"ModalityEncoder, features: {unknown_name('node type', ntype, self.widths)}")
        expected, rows = self.widths[ntype], None
        for name in {**expected, **own}:
            where = f"ModalityEncoder, features[{ntype!r}][{name!r}]"
            if name not in expected:
                raise SchemaError(f"{where}: {unknown_name('modality', name, expected)}")
            if name not in own:
                raise SchemaError(f"{where}: it is declared and missing; mark single nodes in `present` instead")
            rows = own[name].shape[0] if rows is None else rows
            if own[name].shape != (rows, expected[name]):
                raise ShapeError(
                    f"{where}: expected shape {(rows, expected[name])}, got {tuple(own[name].shape)}; rows are the "
                    "type's nodes, columns what the constructor was told"
                )


class _Encoder(nn.Module):
    def __init__(
        self,
        in_size: int,
        out_size: int,
        *,
        input_norm: str,
        output_norm: bool,
        activation: str,
        dropout: float,
        input_dropout: float,
    ) -> None:
        super().__init__()
        self.input_norm: nn.Module
        match input_norm:
            case "batch":
                self.input_norm = nn.BatchNorm1d(in_size)
            case "layer":
                self.input_norm = nn.LayerNorm(in_size)
            case _:
                self.input_norm = nn.Identity()
        self.linear = nn.Linear(in_size, out_size)
        self.output_norm = nn.LayerNorm(out_size) if output_norm else nn.Identity()
        self.activation = ACTIVATIONS[activation]
        self.dropout = nn.Dropout(dropout)
        self.input_dropout = nn.Dropout(input_dropout)

    def forward(self, x: Tensor) -> Tensor:
        norm = self.input_norm
        if isinstance(norm, nn.BatchNorm1d) and self.training and x.shape[0] < 2:
            # One row has no variance; the running statistics are all there is.
            x = F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
        else:
            x = norm(x)
        x = self.input_dropout(x)
        x = F.linear(x, self.linear.weight[:, : x.shape[1]], self.linear.bias)
        return self.dropout(self.activation(self.output_norm(x)))  # type: ignore[no-any-return]


def _check_options(names: tuple[str, ...], norms: tuple[str, ...], activation: str, fill: str | None) -> None:
    where = "ModalityEncoder"
    if not names:
        raise SchemaError(f"{where}, widths: no node type has a modality, got none; give one at least one feature")
    for norm in norms:
        if norm not in INPUT_NORMS:
            raise ConfigError(f"{where}, input_norm: {unknown_name('input_norm', norm, INPUT_NORMS)}")
    if len(norms) != len(names):
        raise ConfigError(f"{where}, input_norm: expected one name or {len(names)}, got {len(norms)}; one a modality")
    if activation not in ACTIVATIONS:
        raise ConfigError(f"{where}, activation: {unknown_name('activation', activation, ACTIVATIONS)}")
    if fill is None or fill == "zeros":
        return
    if not fill.startswith(_COPY):
        raise ConfigError(f"{where}, fill: {unknown_name('fill', fill, ['zeros', 'copy:MODALITY'])}")
    if fill.removeprefix(_COPY) not in names:
        raise SchemaError(f"{where}, fill {fill!r}: {unknown_name('modality', fill.removeprefix(_COPY), names)}")
