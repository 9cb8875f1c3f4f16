"""The operator's door: JSON-RPC 2.0 on a unix socket that only the node's account may open."""
