"""What travels between nodes: messages, their bytes, and where they are spoken."""
