"""CapFilt (paper, section 3.3): what `capfilt.py` scores, and what `capfilt.py select` keeps of it.

scores       the score files of a run: their columns, written whole or not at all, opened with checks
"""
