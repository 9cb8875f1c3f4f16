"""The daemon: everything that waits, talks or remembers."""
