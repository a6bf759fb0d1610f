"""Pictures to model input, with torch and Pillow alone.

image           the transforms of evaluation and training, and the normalization on the device
randaugment     RandAugment with the operations of BLIP's recipe
"""
