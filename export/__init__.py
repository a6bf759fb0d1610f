"""ONNX graphs of a checkpoint, for programs without torch: `python -m export CHECKPOINT --out FOLDER` (docs/deploy.md).

networks        what is exported: modules of plain tensors
graphs          modules -> graphs, in 32-bit floats or with weights of 8 bits
loop            the beam search as one graph
check           graphs against the model they were made of
folder          the files of an export, and what stands beside the graphs
"""
