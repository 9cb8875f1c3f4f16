"""Whether the node is well, and what it does: health, metrics, and word to systemd."""
