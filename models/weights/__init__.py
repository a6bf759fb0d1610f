"""Checkpoints: find and download them, read their tensors, load these into a model, and export to Hugging Face.

released           the checkpoints published with the paper: their names, URLs and scores
included           the small models that come with this repository
address            checks web addresses, and opens them along safe redirects
download           downloads a URL to a file
files              finds the file of a name, path, URL or hub name, and reads its tensors
unpickle           reads files of torch.save without running code
digest             the SHA-256 that stands beside a download
integrity          whether a file holds what was written, and whether its weights are finite
huggingface_names  renames tensors between Hugging Face's BLIP and this package
load               loads tensors into a model; a mismatch that it cannot explain is an error
sizes              reads the sizes of a model from its checkpoint
build              builds the model that a checkpoint was made for
imagenet_bert      initializes pre-training from an ImageNet ViT and BERT
huggingface        saves a model as a folder that `transformers` loads
"""
