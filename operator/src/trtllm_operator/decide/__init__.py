"""Pure decisions over gathered input."""
