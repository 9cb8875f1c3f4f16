"""The node's memory on disk: a journal, blobs by hash, and signed transactions."""
