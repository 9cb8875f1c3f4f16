"""What may keep a node from working: one check per thing, each with its fix in one line.

Checks work beside a running node and without one. They change nothing.
"""
