"""A simulator of TensorRT-LLM's tools: the same commands, files and endpoints, with the tokens computed on the CPU."""
