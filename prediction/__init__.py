"""The tasks of predict.py, and the writers of their results."""
