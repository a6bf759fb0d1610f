"""Sizes of a model that is built and run in milliseconds."""

VIT = {"embed_dim": 32, "depth": 2, "num_heads": 2, "patch_size": 16}
TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
