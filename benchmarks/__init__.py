"""Measurements. `benchmarks.run` has all that compute with a model, and the loader's; each of the others is a command.

run          the command; its jobs are in jobs/, the baselines in textbook/, what must come out right in checks.py
predict      predict.py from files to captions, against Hugging Face's model
capfilt      the job of CapFilt alone
annotations  start-up and memory of millions of captions
checkpoints  how long training stands still for a checkpoint, and until its file is whole
startup      the start of a run on 115 million samples: questions to the file system, time, memory
readers      who opens which shards, with and without lanes
scaling      arithmetic for 8, 16 and 128 GPUs
deploy       our Python, ONNX and Hugging Face: latency of one picture, throughput of 64
select       the choice among the scores of a CapFilt run
pages        brings the tables of README.md and docs/ up to date with results/

`repeated_lines` counts instead: how much of each script stands in another.
"""

import time

BEGAN = time.monotonic()  # before torch is imported, which takes seconds of a budget
