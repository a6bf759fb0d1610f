"""Weights: name -> file -> tensors -> model.

released           the checkpoints published with the paper: their names, addresses and scores
download           an address -> a file in the cache
files              a name, path, address or hub name -> its file -> its tensors, without running code from it
huggingface_names  tensors under the names of Hugging Face's BLIP <-> under ours
load               tensors -> a given model; a difference that it cannot explain is an error
build              a file -> the model that it was made for
imagenet_bert      where pre-training starts: an ImageNet ViT and BERT
huggingface        a model -> a folder that `transformers` loads
"""
