"""The running operator: watches, queue, passes, probes, metrics. The only layer that imports kopf."""
