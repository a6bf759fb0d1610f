"""Retrieval in two stages: each query's most similar candidates by cosine, re-ranked by the matching head.

`rerank` runs both, given a model, the images (`ImageStates`) and the texts.

search        the entry point, and the scores of the matching head
pairs         the candidates by similarity, and the (image, text) pairs to score
image_states  encodes the images, and keeps their states for the matching head
work_shares   splits the work evenly among processes
"""

from models.rerank.image_states import ImageStates
from models.rerank.search import ScoredCandidates, rerank
from models.rerank.work_shares import Processes

__all__ = ["ImageStates", "Processes", "ScoredCandidates", "rerank"]
