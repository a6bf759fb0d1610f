"""What every evaluation does once, between a script's predictions and the files that a run leaves.

run          every split of a task: predict, gather, write, score, report
captioning   the captions of a split's images
search       retrieval in both directions over every split of images or clips
cases        the findings of each task: scores under their names, and samples with their errors
findings     what these are made of
provenance   what a checkpoint was made for and trained on
report       the table against published figures, warnings, samples by error
gallery      the worst and the best samples as a page
"""
