"""HGNN-IMA: node classification on multimodal heterogeneous graphs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from hgmm.errors import SchemaError
from hgmm.graph.schema import GraphSchema
from hgmm.losses.missing_modality import missing_modality_loss
from hgmm.models._inputs import layer_graphs, read_inputs
from hgmm.models._options import check_options
from hgmm.models.variants import VARIANTS
from hgmm.nn import CrossModalConv, InterModalAttention, ModalityEncoder
from hgmm.nn._relations import types_towards
from hgmm.nn.functional import count_present_neighbors, destination_rows
from hgmm.registry import MODELS
from hgmm.typing import EdgeDict, NodeDict, NodeOutput

__all__ = ["HGNNIMA"]


@MODELS.register("hgnn-ima")
class HGNNIMA(nn.Module):
    """Classify nodes from their modalities and those of their neighbourhood.

    An encoder by node type and modality, `num_layers` of `hgmm.nn.CrossModalConv`, `hgmm.nn.InterModalAttention` over
    the modalities of a node, and one Linear that classifies the fused state and, as branches, each modality's own.

    Parameters
    ----------
    schema : GraphSchema
        Types, relations, modalities, target and classes. A graph may lack some of the types and relations.
    variant : str, optional
        ``sharp`` is ours: absent modalities are masked. ``modal2_align``, ``modal2_missing``, ``modal3_align`` and
        ``model_modal3`` are the released modules, ``poster`` the printed equations; they fill absent features instead.
        All take any number of modalities.
    hidden_size, num_heads, num_layers : int, optional
        F, H (divides F) and the number of layers L.
    dropout, encoder_dropout, input_dropout, fusion_dropout : float, optional
        On the result of a layer, of the encoder, on the features, on the fusion's scores. Default: the variant's.
    modality_dropout : float, optional
        Chance to hide a modality of a node in training, never its last; only where absence is masked.
    ablate : sequence of str, optional
        Any of ``cross, adapt, inf, nei, align``; ``cross`` and ``inf`` exclude each other.
    gamma : float, optional
        Strength of the alignment in ``sharp``.
    temperature : float, optional
        Factor on the inter-node logits. Default: the variant's.
    fill : str, optional
        ``zeros`` or ``copy:MODALITY`` for variants that fill. Default: ``zeros``.
    use_norm : bool, optional
        LayerNorm in the layers.
    input_norm : str, optional
        ``none``, ``batch`` or ``layer`` for the features. Default: the variant's.
    missing_attention_form : str, optional
        ``code`` or ``poster``: how ``aux["missing_attention"]`` is formed.
    kv_dtype : str, optional
        ``bfloat16`` stores keys and values in half the bytes; arithmetic and parameters stay float32.

    Attributes
    ----------
    schema : GraphSchema
        As given.
    tasks, variants : tuple of str
        What the model can be trained for, and its variants.

    Raises
    ------
    ConfigError
        An option is unknown or out of range.
    SchemaError
        The schema has no target or no classes.

    References
    ----------
    HGNN-IMA, IJCAI 2025, doi 10.24963/ijcai.2025/338, and its released modules.

    Examples
    --------
    >>> import torch
    >>> from hgmm.dgl_compat import dgl
    >>> from hgmm.graph import ModalitySpec
    >>> etype = ("item", "like", "item")
    >>> schema = GraphSchema(
    ...     ("item",), (etype,), {"item": {"text": ModalitySpec("text", 4)}}, target="item", classes=("a", "b")
    ... )
    >>> g = dgl.heterograph({etype: ([0, 1], [1, 2])})
    >>> g.nodes["item"].data["text"] = torch.randn(3, 4)
    >>> HGNNIMA(schema, hidden_size=16, num_heads=2)(g).logits.shape
    torch.Size([3, 2])
    """

    tasks = ("node-classification",)
    variants = tuple(VARIANTS)

    def __init__(
        self,
        schema: GraphSchema,
        *,
        variant: str = "sharp",
        hidden_size: int = 64,
        num_heads: int = 8,
        num_layers: int = 2,
        dropout: float | None = None,
        encoder_dropout: float | None = None,
        input_dropout: float | None = None,
        fusion_dropout: float | None = None,
        modality_dropout: float = 0.0,
        ablate: Sequence[str] = (),
        gamma: float = 1.0,
        temperature: float | None = None,
        fill: str | None = None,
        use_norm: bool = True,
        input_norm: str | None = None,
        missing_attention_form: str = "code",
        kv_dtype: str | None = None,
    ) -> None:
        super().__init__()
        self._args: dict[str, Any] = {
            "variant": variant,
            "hidden_size": hidden_size,
            "num_heads": num_heads,
            "num_layers": num_layers,
            "dropout": dropout,
            "encoder_dropout": encoder_dropout,
            "input_dropout": input_dropout,
            "fusion_dropout": fusion_dropout,
            "modality_dropout": modality_dropout,
            "ablate": ablate if isinstance(ablate, str) else list(ablate),
            "gamma": gamma,
            "temperature": temperature,
            "fill": fill,
            "use_norm": use_norm,
            "input_norm": input_norm,
            "missing_attention_form": missing_attention_form,
            "kv_dtype": kv_dtype,
        }
        check_options(schema, self._args)
        row = VARIANTS[variant]
        defaults = row.defaults(schema.num_modalities)
        args: dict[str, Any] = {k: defaults.get(k) if v is None else v for k, v in self._args.items()}
        self._args = args
        self.schema = schema
        self.target: str = str(schema.target)
        self.masked = row.fill is None
        self.modality_dropout = modality_dropout
        self.missing_attention_form = missing_attention_form
        # The poster's L_att sums over the receivers of all types.
        needed = types_towards(self.target, schema.canonical_etypes, num_layers)[1:]
        self._needed = (frozenset(schema.ntypes),) * num_layers if missing_attention_form == "poster" else needed
        self.encoder = ModalityEncoder(
            schema,
            hidden_size,
            shared=row.shared_encoder,
            input_norm=args["input_norm"] or row.norms(schema.num_modalities),
            output_norm=row.output_norm,
            activation=row.activation,
            dropout=args["encoder_dropout"],
            input_dropout=args["input_dropout"],
            fill=args["fill"],
        )
        self.convs = nn.ModuleList(
            CrossModalConv(
                schema.ntypes,
                schema.canonical_etypes,
                num_modalities=schema.num_modalities,
                hidden_size=hidden_size,
                num_heads=num_heads,
                dropout=args["dropout"],
                use_norm=use_norm,
                combine=next((name for name in ablate if name in ("cross", "inf")), row.combine),
                align="align" not in ablate,
                gamma=gamma,
                uniform_nodes="nei" in ablate,
                uniform_modalities="adapt" in ablate,
                temperature=args["temperature"],
                scale=row.scale,
                scale_modal=row.scale_modal,
                prior=row.prior,
                modal_by_modality=row.modal_by_modality,
                relation_reduce=row.relation_reduce,
                message_activation=row.message_activation,
                init=row.init,
                kv_dtype=kv_dtype,
            )
            for _ in range(num_layers)
        )
        self.fusion = InterModalAttention(
            hidden_size,
            num_modalities=schema.num_modalities if row.project_fusion else 0,
            bounded=row.bounded_fusion,
            dropout=args["fusion_dropout"],
            score_dropout=row.fusion_score_dropout,
        )
        self.classifier = nn.Linear(hidden_size, schema.num_classes)

    def constructor_args(self) -> dict[str, Any]:
        """Return what rebuilds the model: ``HGNNIMA(model.schema, **model.constructor_args())``; JSON data."""
        return {**self._args, "ablate": list(self._args["ablate"])}

    def forward(self, graph: Any, nodes: Tensor | None = None) -> NodeOutput:
        """Classify nodes of the target type.

        Parameters
        ----------
        graph : dgl.DGLGraph, MultimodalGraph or sequence of blocks
            Features and presence masks are read from its frames as `hgmm.graph.MultimodalGraph` puts them there; of
            blocks, one a layer as ``dgl.dataloading.NeighborSampler`` makes them, from the first one's source nodes.
        nodes : Tensor, optional
            ``(n,)`` int64: the target nodes wanted. Default: all of the graph, or the last block's destination nodes.

        Returns
        -------
        NodeOutput
            Branches are the modalities. ``available`` says what a node has after propagation; it is None for variants
            that fill. ``aux``: ``missing_attention`` (scalar L_att), ``modality_weights`` (n, M), ``embedding`` (n, F).

        Raises
        ------
        SchemaError
            The graph has an unknown type or relation, lacks the target type, or a declared feature.
        ConfigError
            The number of blocks is not the number of layers.
        """
        h, present, aux, _ = self._propagate(graph, return_attention=False)
        if nodes is not None:
            nodes = nodes.to(h.device)
            h, present = h[nodes], None if present is None else present[nodes]
        z = self.fusion.transform(h)
        fused, weights = self.fusion.combine(z, present)
        return NodeOutput(
            logits=self.classifier(fused),
            branch_logits=self.classifier(z),
            branch_names=self.schema.modality_names,
            available=present,
            aux={"missing_attention": aux, "modality_weights": weights, "embedding": fused},
        )

    @torch.no_grad()
    def attention(self, graph: Any) -> list[EdgeDict]:
        """Return each layer's attention weights.

        Parameters
        ----------
        graph : dgl.DGLGraph or sequence of blocks
            As in `forward`.

        Returns
        -------
        list of dict of (str, str, str) to Tensor
            By layer and relation ``(E, H)``, or ``(E, M, H)`` for the ablations `cross` and `inf`, in DGL's edge order.
            Relations that do not lead to the target in the layers that follow are left out.
        """
        return self._propagate(graph, return_attention=True)[3]

    def _propagate(self, graph: Any, *, return_attention: bool) -> tuple[Tensor, Tensor | None, Tensor, list[EdgeDict]]:
        graphs = layer_graphs("HGNNIMA", graph, len(self.convs))
        features, at_input = read_inputs("HGNNIMA", graphs[0], self.schema, self.classifier.weight.device)
        h = self.encoder(features, at_input)
        present: NodeDict | None = self._drop_modalities(at_input) if self.masked else None
        absent = {ntype: ~mask for ntype, mask in at_input.items()}
        attn, sums, counts = [], [], []
        for layer, (conv, g) in enumerate(zip(self.convs, graphs, strict=True)):
            weights, count = self._lambda_weights(g, absent, present)
            out = cast(CrossModalConv, conv).propagate(
                g,
                h,
                present,
                lambda_weight=weights,
                ntypes=self._needed[layer],
                return_attention=return_attention,
            )
            absent = {ntype: destination_rows(g, ntype, mask) for ntype, mask in absent.items()}
            attn.append(out.attn)
            sums.append(self._counted_sums(out.lambda_sums, absent))
            counts.append(count)
            h, present = out.h, out.present
        if self.target not in h:
            raise SchemaError(
                f"HGNNIMA, graph: the target node type {self.target!r} is missing, got {sorted(h)}; "
                "pass a graph that has it"
            )
        loss = missing_modality_loss(sums, counts, form=self.missing_attention_form)
        final = None if present is None else present[self.target]
        return h[self.target], final, loss.to(h[self.target]), attn

    def _drop_modalities(self, present: NodeDict) -> NodeDict:
        if not self.training or self.modality_dropout == 0:
            return present
        result = {}
        for ntype, mask in present.items():
            draw = torch.rand(mask.shape, device=mask.device).masked_fill(~mask, -1.0)
            # The largest draw of a node stays, so that none loses its last modality.
            kept = (draw >= self.modality_dropout) | (draw == draw.amax(1, keepdim=True))
            result[ntype] = mask & kept
        return result

    def _lambda_weights(self, graph: Any, absent: NodeDict, present: NodeDict | None) -> tuple[EdgeDict, EdgeDict]:
        """Return by relation the operator's ``lambda_weight`` (N_src, M) and the number of edges that count (M,)."""
        dtype = self.classifier.weight.dtype
        weights: EdgeDict = {}
        counts: EdgeDict = {}
        for etype in graph.canonical_etypes:
            lacking = absent[etype[0]]
            if self.missing_attention_form == "poster":
                weights[etype] = torch.ones_like(lacking, dtype=dtype)
                counts[etype] = torch.full((lacking.shape[1],), graph.num_edges(etype), device=lacking.device)
            elif etype[2] == self.target and bool(lacking.any()):
                counts[etype] = count_present_neighbors(graph, etype, lacking).sum(0)
                # A masked modality has lambda 0 until it has arrived by propagation.
                seen = lacking if present is None else lacking & present[etype[0]]
                if bool(seen.any()):
                    weights[etype] = seen.to(dtype)
        return weights, counts

    def _counted_sums(self, sums: EdgeDict, absent: NodeDict) -> EdgeDict:
        """Leave to the poster's form the receivers that lack the modality; the released form sums over all."""
        if self.missing_attention_form == "code":
            return sums
        return {etype: x * absent[etype[2]].unsqueeze(-1) for etype, x in sums.items()}
