"""The contract: sides and entities of negatives, from whichever implementation takes the tensors."""

from __future__ import annotations

from torch import Tensor

from hgmm import settings
from hgmm.errors import ConfigError
from hgmm.kernels._dispatch import Backend, compiled_backends, implementation, select
from hgmm.kernels.negative_sampling import reference
from hgmm.kernels.negative_sampling.inputs import DrawInputs, Drawn

__all__ = ["draw_entities", "draw_shared", "draw_sides"]


_OP = "negative_sampling"


def _run_compiled(inputs: DrawInputs, backend: str) -> Drawn:
    drawn: Drawn = implementation(_OP, backend).run(inputs)
    return drawn


# The torch version is the one for CUDA, too.
_BACKENDS = (
    compiled_backends(_OP, _run_compiled)[0],
    Backend("reference", reference.run, lambda inputs: []),
)


def draw_shared(inputs: DrawInputs, chunk_size: int) -> Tensor:
    """Draw what positives have in common, for ``DrawInputs.first``.

    Parameters
    ----------
    inputs : DrawInputs
        Of the draw that it is for.
    chunk_size : int
        Positives in a row that share their candidates, at least 1.

    Returns
    -------
    Tensor
        ``(ceil(B / chunk_size), K)`` int64, uniform and independent; the same on every device.
    """
    return reference.shared(inputs, chunk_size)


def draw_sides(inputs: DrawInputs) -> Tensor:
    """Return ``(B, K)`` int8 sides, 0 head and 1 tail: those that `draw_entities` gives for the same arguments."""
    return _run(inputs._replace(only_sides=True)).side


def draw_entities(inputs: DrawInputs) -> Drawn:
    r"""Draw for each negative a side and an entity that is neither the positive's own nor makes a known triple.

    Every negative has a stream of 32-bit words, Philox4x32-10 with the seed as key and the counter (positive, k, step,
    block). Word 0 below ``head_below[relation]`` corrupts the head. Each further word is an attempt, mapped to the
    candidates by multiply-shift with rejection, so each is equally likely; the first of those among all is taken from
    ``inputs.first`` instead where that is given. After 31 attempts the entity is drawn from
    the list of candidates without the excluded ones; if there is none, the negative falls back to level 0 and then to
    all entities.

    Parameters
    ----------
    inputs : DrawInputs
        Ids are within range; all tensors are on one device.

    Returns
    -------
    Drawn
        The same for every backend, device and number of threads.

    Raises
    ------
    ConfigError
        A positive for which every entity is excluded.
    BackendError
        ``HGMM_BACKEND=cpu`` and tensors are elsewhere, or there is no compiled library.

    Notes
    -----
    There is no version in Triton: with ``HGMM_BACKEND=triton`` the torch version runs, on the device of the positives.
    """
    drawn = _run(inputs)
    if drawn.failed >= 0:
        row, k = divmod(drawn.failed, inputs.num_negs_per_pos)
        triple = tuple(inputs.positives[row].tolist())
        names, side = inputs.relation_names, "tail" if int(drawn.side[row, k]) else "head"
        relation = f"{triple[1]}" if names is None else f"{names[triple[1]]!r}"
        raise ConfigError(
            f"negative sampling, positives: some entity must make a false triple, and in row {row}, {triple} of "
            f"relation {relation}, every other {side} makes a known one; leave this positive out or filter against "
            "fewer triples"
        )
    return drawn


def _run(inputs: DrawInputs) -> Drawn:
    if settings.backend() == "triton":
        return reference.run(inputs)
    return select(_OP, _BACKENDS, inputs).run(inputs)
