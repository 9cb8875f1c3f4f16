"""A seller's data and private training, and exact evaluation with torch.

Torch is imported by `accounting`, `adam`, `convolution`, `exact`, `fast_exact`, `gradients`,
`local`, `models`, `private` and `windows` alone. All of them but the two exact ones run in the
training process: `runner` starts it, `worker` is its program, and `pipe` what the two say to each
other. `fast_exact` is for simulations.
"""
