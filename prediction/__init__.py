"""What a model can be asked about any pictures, and where its answers go."""
