"""A seller's data and private training. Only `local`, `models` and `adam` import torch."""
