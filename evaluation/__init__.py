"""Evaluation, as the scripts share it: from a model's predictions to scores, comparisons and galleries.

splits       evaluates every split of a task: predict, gather, write, score, report
captioning   captions the images of a split
search       retrieves over a split in both directions
cases        the findings of each task: its scores, and its samples with their errors
findings     the classes `Findings` and `Case`
provenance   what a checkpoint was made for and trained on
report       the table of scores beside published ones, warnings, samples sorted by error
gallery      the worst and the best samples as an HTML page
"""
