"""The small network that these tests share."""

from coupled_net import batches, graph, network

__all__ = ["batches", "graph", "network"]
