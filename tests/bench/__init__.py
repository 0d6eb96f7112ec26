"""The benchmark: what the operator costs, beside a bare client that does the same work in the same run. See `make bench`."""
