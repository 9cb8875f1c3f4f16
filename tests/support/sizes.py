"""How much memory objects take, counted object by object."""

import gc
import sys
from collections.abc import Iterable


def measure_bytes(root: object, *, leave_out: Iterable[object] = ()) -> int:
    """Add up what an object and all that it leads to takes; classes and modules left out."""
    seen = {id(one) for one in leave_out}
    todo, total = [root], 0
    while todo:
        one = todo.pop()
        if id(one) in seen or isinstance(one, type) or callable(one):
            continue
        seen.add(id(one))
        total += sys.getsizeof(one)
        todo += gc.get_referents(one)
    return total
