"""CapFilt (paper, section 3.3): what `capfilt.py` scores, and what `capfilt.py select` keeps of it.

scores          the score files of a run: their columns, written whole or not at all, opened with checks
whole_files     files written whole or not at all, in pieces

The run:

scoring         draws the units of the corpus, and writes the scores of each
caption_filter  the captioner and the filter: synthetic texts, and scores of all texts
progress        how far the run is, and whether too much cannot be used
identity        what a run is of: a restart must be of the same

The choice:

choice          `capfilt.py select`: its keys, and everything it writes
blocks          the rows of the scores, read in blocks of whole images
selection       which texts are kept
statistics      what a choice did: counts by source, histograms, and how right it was where truth is known (truth)
uids            images' uids as numbers: collisions, and the file for DataComp's tools
lists           the kept texts as JSON lists
shards          the corpus' shards with the kept texts
page            `capfilt.html`, with charts, samples and pictures
samples         the texts that the page shows as examples
pictures        the pictures of the corpus, for the page
truth           which web texts belong to their images, where that is known
arrow           pyarrow's functions on columns
"""
