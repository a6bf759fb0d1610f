"""The images of a web corpus with their texts, in units of work: what there is to caption and to filter.

units       an image, what cannot be used, a unit of work, and the interface of every corpus
sources     opens the corpus that a config names
lists       JSON lists, and Parquet files with paths or addresses
shards      WebDataset shards (tar files)
parquet     Parquet files with pictures as bytes
folder      a folder of pictures, with .txt files beside them or none
"""
