"""A command's end, as the tests of the command line look at it."""

import json
from dataclasses import dataclass
from typing import Any


@dataclass
class Ended:
    """What a command printed, and its code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)
