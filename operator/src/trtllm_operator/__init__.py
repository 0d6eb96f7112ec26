"""A Kubernetes operator for TensorRT-LLM: build once, serve many."""
