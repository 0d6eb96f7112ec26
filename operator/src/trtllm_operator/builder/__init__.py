"""The stage program: runs in Jobs, in images that are not ours, with the standard library only."""
