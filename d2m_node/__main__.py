"""`python -m d2m_node`."""

from d2m_node.cli import main

if __name__ == "__main__":
    main()
