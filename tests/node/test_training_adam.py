import subprocess
import sys
from pathlib import Path

import torch

from d2m_node.training.adam import Adam

ROOT = Path(__file__).resolve().parents[2]


def test_it_takes_the_steps_of_torch() -> None:
    generator = torch.Generator().manual_seed(1)
    ours = [torch.randn(3, 4, generator=generator), torch.randn(5, generator=generator)]
    theirs = [one.clone() for one in ours]
    optimizer = Adam(ours, rate=0.01)
    reference = torch.optim.Adam(theirs, lr=0.01)
    for _ in range(50):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn(one.shape, generator=generator)
            other.grad = one.grad.clone()
        optimizer.step()
        reference.step()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_training_does_not_import_the_compiler() -> None:
    """The reason for an Adam of our own: when torch's no longer does, ours can go."""
    code = (
        "import sys, torch\n"
        "from d2m_node.training.adam import Adam\n"
        "parameter = torch.zeros(1)\n"
        "parameter.grad = torch.ones(1)\n"
        "Adam([parameter], rate=0.1).step()\n"
        "assert 'torch._dynamo' not in sys.modules\n"
        "torch.optim.Adam([parameter])\n"
        "assert 'torch._dynamo' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
