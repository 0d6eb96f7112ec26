"""Talk to the API server: the only layer that imports kubernetes."""

from trtllm_operator.kube import slim as slim  # before anything imports the client
