"""Text encoding and reduction of the embedded emoji dataset's features; no labels enter anywhere."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

NGRAM_SIZES = (3, 4, 5)
HASH_BUCKETS = 2**18
WORD = re.compile(r"\w+")
TEXT_ENCODER = (
    "hashed words and character 3- to 5-grams inside words (BLAKE2b), log(1 + count) x smoothed inverse document "
    "frequency, rows of length 1"
)


@dataclass(frozen=True)
class Reduction:
    """Reduced features and what was kept of the variance."""

    features: np.ndarray
    explained_variance: float


def tfidf(texts: Sequence[str], *, stop_words: Collection[str]) -> sp.csr_array:
    """Encode texts as weighted hashed n-grams.

    Parameters
    ----------
    texts
        Short texts; the document frequencies are counted on these.
    stop_words
        Words left out of every text, lower case.

    Returns
    -------
    scipy.sparse.csr_array
        Float64, shape ``(len(texts), HASH_BUCKETS)``; rows of length 1, or 0 for a text without any term.
    """
    terms = [_terms(text, stop_words) for text in texts]
    rows = np.repeat(np.arange(len(texts)), [len(row) for row in terms])
    columns = np.array([_bucket(term) for row in terms for term in row])
    shape = (len(texts), HASH_BUCKETS)
    counts = sp.csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)
    counts.data = np.log1p(counts.data)
    document_frequency = np.bincount(counts.indices, minlength=HASH_BUCKETS)
    counts.data *= np.log((1 + len(texts)) / (1 + document_frequency[counts.indices])) + 1
    length = np.sqrt(counts.multiply(counts).sum(axis=1))
    counts.data /= np.repeat(length, np.diff(counts.indptr))
    return counts


def principal_components(gram: np.ndarray, *, width: int, rotation_seed: int) -> Reduction:
    """Reduce rows given by their Gram matrix to principal components on randomly rotated axes.

    The axes of a principal component analysis are ordered by variance, and the first ones tell some classes apart
    alone. A fixed random rotation keeps all distances and inner products and gives every column the same standing.

    Parameters
    ----------
    gram
        Shape ``(N, N)``: inner products of the rows, not centred.
    width
        Number of components kept.
    rotation_seed
        Seed of the orthogonal matrix.

    Returns
    -------
    Reduction
        Features of shape ``(N, width)``, float64, with mean 0 and mean square 1 over all entries.
    """
    mean = gram.mean(axis=0)
    centred = gram - mean[None, :] - mean[:, None] + mean.mean()
    variances, vectors = np.linalg.eigh(centred)
    top = np.argsort(-variances, kind="stable")[:width]
    signs = np.sign(vectors[np.abs(vectors[:, top]).argmax(axis=0), top])
    components = vectors[:, top] * (signs * np.sqrt(variances[top]))
    normal = np.random.default_rng(rotation_seed).standard_normal((width, width))
    rotation, triangle = np.linalg.qr(normal)
    # The signs of the triangle's diagonal make the orthogonal matrix uniformly distributed and unique.
    features = components @ (rotation * np.sign(np.diag(triangle)))
    return Reduction(
        features=features / np.sqrt(np.mean(features**2)),
        explained_variance=float(variances[top].sum() / variances.clip(min=0).sum()),
    )


def _terms(text: str, stop_words: Collection[str]) -> list[str]:
    terms = []
    for word in WORD.findall(text.lower()):
        if word not in stop_words:
            padded = f"<{word}>"
            terms.append(f"word:{word}")
            terms += [padded[i : i + n] for n in NGRAM_SIZES for i in range(len(padded) - n + 1)]
    return terms or [f"text:{text.lower()}"]


def _bucket(term: str) -> int:
    return int.from_bytes(hashlib.blake2b(term.encode(), digest_size=8).digest(), "little") % HASH_BUCKETS
