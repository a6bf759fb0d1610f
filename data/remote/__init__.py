"""Shards that are no files of this machine: in an object store, on a web server, or on a slow mount.

addresses       s3://, gs://, https://, file:// and the like, and the file system (fsspec) that reads each
reading         one request after the other: what is retried, what is too slow, what no further attempt would change
listing         what a run must know of its shards beforehand: size, version, number of samples
session         a process's part of the folder that copies lie in, which the processes of a machine share
stage           where loader workers wait for shards, and learn which are lost
stager          the thread that copies shards ahead of the batches that need them, and drops them afterwards
"""
