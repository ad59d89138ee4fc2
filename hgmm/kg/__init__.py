"""Knowledge graphs: interactions, and how well a model ranks what it was not shown; tensors in and out."""

from __future__ import annotations

from hgmm.kg.candidate_table import CandidateTable
from hgmm.kg.interactions import INTERACTIONS, ComplEx, DistMult, Interaction, RotatE, TransE, get_interaction
from hgmm.kg.pair_scores import ModalityPairs, PairScores
from hgmm.kg.ranking_evaluator import (
    CATEGORIES,
    CandidateScorer,
    RankingEvaluator,
    RankingResult,
    relation_categories,
)
from hgmm.kg.ranks import SIDES, TIES, Ranks
from hgmm.kg.triples import LeakReport, TripleSet

__all__ = [
    "CATEGORIES",
    "INTERACTIONS",
    "SIDES",
    "TIES",
    "CandidateScorer",
    "CandidateTable",
    "ComplEx",
    "DistMult",
    "Interaction",
    "LeakReport",
    "ModalityPairs",
    "PairScores",
    "RankingEvaluator",
    "RankingResult",
    "Ranks",
    "RotatE",
    "TransE",
    "TripleSet",
    "get_interaction",
    "relation_categories",
]
