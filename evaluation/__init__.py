"""Evaluation, as the scripts share it: from a model's predictions to scores, comparisons and galleries.

run          every split of a task: predict, gather, write, score, report
captioning   the captions of a split's images
search       retrieval in both directions over every split of images or clips
cases        the findings of each task: scores under their names, and samples with their errors
findings     what these are made of
text_limit   how long the texts of a task may be
provenance   what a checkpoint was made for and trained on
report       the table of scores beside published ones, warnings, samples sorted by error
web_page     pages in a single file, from templates in one frame
gallery      the worst and the best samples as an HTML page
"""
