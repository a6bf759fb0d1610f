"""Annotation files and WebDataset shards, read once and kept as memory-mapped tables in the cache.

formats         the fields of a task's records, and how each is checked and stored
annotations     JSON and JSON Lines files as a sequence of records
json_values     the values of large JSON files one by one; other tools' layouts
layouts         annotation files of other tools, named with what converts them
table           memory-mapped tables on disk (Arrow files), which check themselves
shards          WebDataset shards as a sequence of samples
shard_index     the index of a shard: where in the tar file each sample lies
shard_samples   the samples in a tar file; what is left out is counted with its reason
published       names, splits and addresses of the paper's annotation files
"""
