"""The variants of HGNN-IMA: one row of switches each, one code path for all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["ABLATIONS", "VARIANTS", "Variant"]

ABLATIONS = ("cross", "adapt", "inf", "nei", "align")
"""Parts that can be taken out: `cross` all of lambda; `adapt` lambda's dependence on the edge; `inf` the mixing across
modalities; `nei` alpha's dependence on the neighbour; `align` the alignment modulation."""


@dataclass(frozen=True)
class Variant:
    """What distinguishes one variant of HGNN-IMA from another.

    Attributes
    ----------
    combine : str
        Row of the operator's table.
    scale, scale_modal : bool
        Divide the inter-node and the inter-modal logits by ``sqrt(D)``.
    temperature : float
        Factor on the inter-node logits.
    prior : bool
        A learned factor by relation and head.
    modal_by_modality : bool
        One W_MODAL a modality and relation, or one a relation.
    relation_reduce, message_activation, init : str
        As in `hgmm.nn.CrossModalConv`.
    shared_encoder : bool
        One input Linear a node type for all its modalities.
    input_norms : tuple of str
        Input norm by position of the modality; the last one stands for all that follow.
    output_norm : bool
        LayerNorm in the encoder.
    activation : str
        Of the encoder.
    fill : str or None
        What stands for absent features; None masks them out instead.
    bounded_fusion : bool
        Fusion scores within (-1, 1).
    project_fusion : bool
        The fusion has a matrix of its own for each modality.
    dropout, input_dropout, fusion_dropout, fusion_score_dropout : float
        Default rates.
    """

    combine: str
    scale: bool = True
    scale_modal: bool = False
    temperature: float = 1.0
    prior: bool = True
    modal_by_modality: bool = True
    relation_reduce: str = "mean"
    message_activation: str = "none"
    init: str = "released"
    shared_encoder: bool = False
    input_norms: tuple[str, ...] = ("batch",)
    output_norm: bool = False
    activation: str = "tanh"
    fill: str | None = "zeros"
    bounded_fusion: bool = True
    project_fusion: bool = False
    dropout: float = 0.2
    input_dropout: float = 0.0
    encoder_dropout: float = 0.0
    fusion_dropout: float = 0.6
    fusion_score_dropout: float = 0.5

    def norms(self, num_modalities: int) -> tuple[str, ...]:
        """Return the input norm of each of `num_modalities` modalities."""
        return tuple(self.input_norms[min(m, len(self.input_norms) - 1)] for m in range(num_modalities))

    def defaults(self, num_modalities: int) -> dict[str, Any]:
        """Return the variant's value of each option of the model that may be left out.

        A model stores them with its arguments, so that it outlives a change of the table. ``input_norm`` is None where
        the norms differ by modality, which belongs to a released module and has no single name.
        """
        names = ("dropout", "encoder_dropout", "input_dropout", "fusion_dropout", "temperature", "fill")
        norms = set(self.norms(num_modalities))
        return {**{n: getattr(self, n) for n in names}, "input_norm": norms.pop() if len(norms) == 1 else None}


VARIANTS = {
    "sharp": Variant(
        combine="sharp",
        scale_modal=True,
        relation_reduce="reached",
        message_activation="gelu",
        init="per-matrix",
        activation="gelu",
        fill=None,
        bounded_fusion=False,
        project_fusion=True,
        dropout=0.3,
        encoder_dropout=0.3,
        fusion_dropout=0.0,
    ),
    "modal2_align": Variant(combine="product"),
    "modal2_missing": Variant(
        combine="product", scale=False, temperature=100.0, shared_encoder=True, input_norms=("none",)
    ),
    "modal3_align": Variant(combine="sum"),
    "model_modal3": Variant(combine="b1", input_norms=("batch", "batch", "none")),
    "poster": Variant(combine="poster", scale=False, prior=False, modal_by_modality=False),
}
