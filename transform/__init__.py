"""Pictures to model input (torch, NumPy, Pillow; pyarrow makes it faster where it is installed).

image           the transforms of evaluation and training, and the normalization on the device
randaugment     RandAugment with the operations of BLIP's recipe
"""
