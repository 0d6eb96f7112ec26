"""A real, very small Llama that recites readable sentences, made without training."""
