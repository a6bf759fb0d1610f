"""Annotation files and shards, read once and kept as memory-mapped tables in the cache.

formats         the fields of a task's records, and how each is checked and stored
addresses       which names of images are web addresses, of whole columns
annotations     JSON, JSON Lines and Parquet files as a sequence of records
json_values     the values of large JSON files one by one; other tools' layouts
layouts         annotation files of other tools, named with what converts them
parquet         Parquet files opened, their rows read a few at a time
parquet_columns which of their columns hold pictures and texts
parquet_records a Parquet file in place of a JSON list
table           memory-mapped tables on disk (Arrow files), which check themselves
shards          WebDataset shards and Parquet files with pictures as a sequence of samples
open_shards     the shards that a process keeps open, and the pictures in them
shard_index     the index of a shard: where in the file each sample lies
shard_samples   the samples in a tar file, those that cannot be used with their reasons
parquet_samples the same of a Parquet file with pictures as bytes
pictures        the picture of a record: a file, a download, or a sample of a shard
shard_selection the samples of shards that a list of uids names
uids            the uids of images, and lists of them
published       names, splits and addresses of the paper's annotation files
"""
