"""What a simulated node is made of: a name, keys, a memory."""
