"""A seller's data and private training, and exact evaluation on a GPU.

Only `adam`, `exact`, `local` and `models` import torch.
"""
