"""Records and pictures to batches: what each task reads, and how a run's processes share it. Formats: docs/data.md.

caption retrieval vqa nlvr nocaps video_retrieval pretrain      the datasets, one task a file
config, config_base     the data keys of each task's config
dataset                 base classes: randomness by (seed, epoch, index), replaced bad images, batches as dicts
order, lanes            the order of an epoch; shards dealt to the processes
sampler, loaders        which samples are in which batch; worker processes that load them
workers                 how many worker processes `num_workers: auto` means
text                    the cleaning of captions and questions
records/                annotation files and shards (tar, Parquet) as memory-mapped tables
remote/                 shards in object stores, on web servers and slow mounts, staged on a local disk
corpus/                 the images of a web corpus with their texts, in units of work
media/                  pictures and clips, from file to pixels
check/                  `python -m data.check CONFIG` checks a config's data before a run
shapes/                 `python -m data.shapes` draws a small world with annotations for every task
"""
