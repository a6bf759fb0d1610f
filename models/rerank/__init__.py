"""Retrieval in two stages: the candidates of every query by cosine similarity, re-ranked by the matching head.

`rerank` does it all, for a model, its images (`ImageStates`) and its texts. `pairs` is the first stage, `search` the
second, `image_states` keeps what the image encoder computed, `work_shares` splits the work among processes.
"""

from models.rerank.image_states import ImageStates
from models.rerank.search import ScoredCandidates, rerank
from models.rerank.work_shares import Processes

__all__ = ["ImageStates", "Processes", "ScoredCandidates", "rerank"]
