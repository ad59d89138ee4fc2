"""What turns gradients into steps: AdamW, in one pass over each parameter, or of the rows alone that were used."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from hgmm.errors import ConfigError
from hgmm.training.config import TrainConfig

__all__ = ["RowAdamW", "make_optimizer"]


class RowAdamW(torch.optim.AdamW):
    """AdamW that leaves rows alone which have no gradient.

    A parameter with a sparse gradient is updated in the rows that it names, and there as AdamW would. The moments of
    all other rows stay as they are, too: they neither fade nor move the row, and nothing decays. The correction of the
    moments' bias counts the steps of the parameter, not of the row. Where every row has a gradient, and for parameters
    with dense gradients, a step equals that of `torch.optim.AdamW` bit for bit.

    Parameters
    ----------
    params, lr, betas, eps, weight_decay
        As of `torch.optim.AdamW`.

    References
    ----------
    The rule of `torch.optim.SparseAdam` ("lazy Adam"), with the decoupled weight decay of Loshchilov and Hutter,
    ICLR 2019.

    Examples
    --------
    >>> table = torch.nn.Parameter(torch.zeros(3, 2))
    >>> optimizer = RowAdamW([table], lr=0.1)
    >>> torch.nn.functional.embedding(torch.tensor([1]), table, sparse=True).sum().backward()
    >>> optimizer.step()
    >>> table.abs().sum(1) > 0
    tensor([False,  True, False])
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # AdamW may take a function
        """Take a step with the gradients as they are.

        Raises
        ------
        ConfigError
            A function that computes them again is given.
        """
        if closure is not None:
            raise ConfigError("RowAdamW.step, closure: not supported, got one; compute the gradients before the step")
        sparse = [
            (group, parameter, parameter.grad)
            for group in self.param_groups
            for parameter in group["params"]
            if parameter.grad is not None and parameter.grad.is_sparse
        ]
        # AdamW passes over parameters without gradient, and refuses sparse ones.
        for _, parameter, _ in sparse:
            parameter.grad = None
        super().step()
        for group, parameter, grad in sparse:
            self._step_rows(group, parameter, grad.coalesce())
            parameter.grad = grad

    def _step_rows(self, group: dict[str, Any], parameter: Tensor, grad: Tensor) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["step"] += 1
        number, (beta1, beta2), rate = float(state["step"]), group["betas"], group["lr"]
        rows, values = grad.indices()[0], grad.values()
        # Operation by operation as in torch's AdamW, for equal bits.
        mean = state["exp_avg"][rows].lerp_(values, 1 - beta1)
        square = state["exp_avg_sq"][rows].mul_(beta2).addcmul_(values, values, value=1 - beta2)
        x = parameter[rows].mul_(1 - rate * group["weight_decay"])
        size = square.sqrt().div_(math.sqrt(1 - beta2**number)).add_(group["eps"])
        x.addcdiv_(mean, size, value=-rate / (1 - beta1**number))
        for table, new in ((state["exp_avg"], mean), (state["exp_avg_sq"], square), (parameter, x)):
            table.index_copy_(0, rows, new)


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """Return the optimiser that a configuration asks for, over the parameters of a model that need gradients.

    A model that has an attribute ``row_gradients`` is told by it whether to give sparse gradients.

    Raises
    ------
    ConfigError
        ``adamw-rows`` is asked for a model without that attribute.
    """
    by_rows = config.optimizer == "adamw-rows"
    if hasattr(model, "row_gradients"):
        model.row_gradients = by_rows  # type: ignore[assignment]  # torch takes attributes for tensors
    elif by_rows:
        raise ConfigError(
            f"train.optimizer: adamw-rows needs a model with tables of rows, such as mm-transe, got "
            f"{type(model).__name__}; choose adamw"
        )
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    options: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    if by_rows:
        return RowAdamW(trained, **options)
    if config.optimizer == "adamw-fused":
        options["fused"] = True
    return torch.optim.AdamW(trained, **options)
