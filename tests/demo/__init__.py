"""`make demo`: from nothing to a streamed answer, on a cluster that it starts itself."""
