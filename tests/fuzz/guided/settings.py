"""What the two processes of guided fuzzing agree on; imports nothing, so that nothing is missed."""

from typing import Final

READERS: Final = "tests.fuzz.guided.readers"
INSTRUMENTED: Final = (
    "protocol",
    "d2m_node",
    "multiaddr",
    "libp2p.peer",
    "libp2p.utils",
    "libp2p.stream_muxer.yamux",
)
"""Packages whose branches are followed: ours, and those of others that parse in Python."""

CORPUS: Final = "corpus"
"""Folder of inputs that reached something new; a later run with the same folder goes on."""
SEEDS: Final = "seeds"
TALLY: Final = "tally.json"
LOG: Final = "libfuzzer.log"

MAX_INPUT_BYTES: Final = 4096
GROWN_BYTES: Final = 8
"""By so many one change may make an input longer."""
LOOK_EVERY: Final = 1000
"""Runs, until the process looks whether whoever started it is still there."""
WARM_UP_SHARE: Final = 0.1
"""Of the runs: then the memory is taken that later is compared with."""
GROWTH_BYTES: Final = 64 * 2**20
"""Beyond the corpus and what it makes caches hold."""
LIBFUZZER: Final = (
    # Seconds for one input, by the clock on the wall: a busy machine may stall a process for long,
    # and what it did not run meanwhile is not slow.
    "-timeout=300",
    "-report_slow_units=300",
    "-rss_limit_mb=2048",
    "-reload=0",
    # Much is decoded in C, where nothing is traced: all real messages stay to be changed.
    "-keep_seed=1",
    "-mutate_depth=3",
    "-len_control=100",
    "-use_value_profile=1",
    "-print_final_stats=1",
)
