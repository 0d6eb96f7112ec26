"""Command line: crds, render, run."""
