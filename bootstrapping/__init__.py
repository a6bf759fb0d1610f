"""CapFilt (paper, section 3.3): what `capfilt.py` scores, and what `capfilt.py select` keeps of it.

scores       the score files of a run: their columns, written whole or not at all, opened with checks

choice       `capfilt.py select`: its keys, and everything it writes
blocks       the rows of the scores, read in blocks of whole images
selection    which texts are kept
statistics   what a choice did: counts by source, histograms, and how right it was where truth is known (truth)
uids         images' uids as numbers: collisions, and the file for DataComp's tools
lists        the kept texts as JSON lists
shards       the corpus' shards with the kept texts
page         `capfilt.html`, with charts, samples and pictures
"""
