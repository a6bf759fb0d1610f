"""The whole BLIP recipe on the embedded world, on one laptop: pre-train, fine-tune on four tasks, show the outcome.

    make demo                     # or python -m demo: 13 to 19 minutes on 2 CPU cores
    make demo-quick               # or python -m demo --quick: every part in under 2 minutes; nothing is learned in them

`output/demo/report.html` then holds curves, scores against chance and against the same fine-tuning without
pre-training, and pictures with what the models say of them. It needs no other file.
"""
