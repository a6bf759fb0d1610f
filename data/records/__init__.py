"""Annotation files and WebDataset shards, read once and kept as memory-mapped tables in the cache.

formats         the fields of a task's records, and how each is checked and stored
annotations     JSON and JSON Lines files as a sequence of records
table           memory-mapped tables on disk (Arrow files)
shards          WebDataset shards as a sequence of samples
shard_index     the index of a shard: where in the tar file each sample lies
published       names, splits and addresses of the paper's annotation files
"""
