"""From sentences to word vectors: tokens, weights and frozen text encoders."""
