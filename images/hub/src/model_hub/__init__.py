"""A small server that speaks the protocol of the Hugging Face Hub, for tests and the demo."""
