"""The node agent: announces cards to kubelet and hands each container exactly its grant."""
