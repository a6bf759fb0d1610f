"""The textbook way of each job, on the weights of our models: the baseline in time, and the oracle of the results.

It is what a reader would write from the paper, as the 2022 code does it: texts are padded to a fixed length, all
positions of all layers are computed, an image's states are repeated for each text that looks at it and projected to
keys and values anew each time, matching takes two passes, and momentum copies follow tensor by tensor.

Attention is PyTorch's fused one on both sides, and the image encoder is the same module: what is compared is what is
computed, not by which kernel.

text    BERT, with attention to images
losses  the training losses of the five models
step    a training step: forward, backward, AdamW
search  beam search, nucleus sampling, ranked answers, matching scores
"""
