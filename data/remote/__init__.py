"""Shards that are no files of this machine: in an object store, on a web server, or on a slow mount.

addresses       s3://, gs://, https://, file:// and the like, and the file system (fsspec) that reads each
reading         one request after the other: what is retried, what is too slow, what no further attempt would change
listing         what a run must know of its shards beforehand: size, version, number of samples
stage           the folder on a local disk that copies lie in, shared by the processes of a machine
stager          the thread that copies shards ahead of the batches that need them, and drops them afterwards
"""
