"""The node's own roles in one process: real contracts, a network and a clock of our own.

Entry points are here: `many` runs a scenario from many seeds; `adversaries` and `faulty` run a real
node that cheats, or that a fault harness stops where it likes. An ordinary node can be none of it.

A package imports those above it in this list only:

- `nodes`: names, keys and memory of simulated nodes.
- `chain`: the real contracts in an EVM of this process, a block at a time of virtual time.
- `network`: who hears what, and when.
- `computing`: who holds which data; what is trained and computed once for all.
- `hostile`: what nodes that cheat do.
- `scenario`: the file that says what is simulated.
- `checks`: what must hold in every block.
- `report`: the log, and what a run came to.
- `world`: the clock, the cast, the faults, the run from the first bid to the last payout.
- `learning`: a scenario's rounds without market, by its rules or by others; imports no `world`.
- `experiments`: a scenario, what varies in it, seeds, figures.
"""
