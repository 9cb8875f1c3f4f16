"""A seller's data and private training, and exact evaluation on a GPU.

Torch is imported by `accounting`, `adam`, `convolution`, `exact`, `gradients`, `local`, `models`
and `private` alone. All of them but `exact` run in the training process: `runner` starts it,
`worker` is its program, and `pipe` what the two say to each other.
"""
