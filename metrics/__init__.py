"""Scores of predictions against ground truth, as each benchmark defines them: captions, retrieval, VQA, NLVR2, NoCaps.

Pure functions of files and lists: nothing here knows a model, a data set or a run.
"""
