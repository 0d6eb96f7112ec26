"""The HTTP server of `trtllm-serve`."""
