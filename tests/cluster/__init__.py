"""A Kubernetes of our own for the tests and the demo: from packages where no container registry answers.

Run it as ``python -m tests.cluster COMMAND`` from the root of the repository. Two things are made here:

* a whole one-node cluster with kubelet and containers (`tests.cluster.kind`), for the e2e tier and the demo;
* the bare control plane as plain processes (`tests.cluster.controlplane`), for the crd, loop and bench tiers.
"""
