"""Flower's simulation, a round at a time: the program that `flower.open_flower` starts.

It is given a folder and a number of clients. Each "go" on its standard input starts a round; the
answer on its standard output is "done". In the folder is ``model.json``; and, for clients that
train, ``client-N.npz`` with inputs and labels. The client's part is what Flower's and torch's
tutorials show: a module, torch's own Adam and autograd.
"""

import json
import os
import sys
from functools import cache
from pathlib import Path
from typing import TextIO

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
# Ray's processes are nicer than others by 15, which costs Flower its cores on a busy machine.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112

import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from torch import nn
from torch.nn import functional

MANY_ROUNDS = 1_000_000
"""The bench ends the process when it has seen enough."""


class RoundsOnDemand(FedAvg):
    """Plain FedAvg of all clients that waits for its word before each round."""

    def __init__(self, clients: int, answers: TextIO) -> None:
        super().__init__(
            fraction_train=1.0,
            fraction_evaluate=0.0,
            min_train_nodes=clients,
            min_available_nodes=clients,
        )
        self._answers = answers

    def configure_train(self, *arguments, **options):
        if sys.stdin.readline() != "go\n":
            os._exit(0)
        return super().configure_train(*arguments, **options)

    def aggregate_train(self, server_round, replies):
        replies = list(replies)
        failed = [one for one in replies if one.has_error()]
        assert not failed, f"{len(failed)} clients failed: {failed[0].error}"
        result = super().aggregate_train(server_round, replies)
        self._answers.write("done\n")
        self._answers.flush()
        return result


def build_client(folder: Path) -> ClientApp:
    app = ClientApp()
    model = json.loads((folder / "model.json").read_text())

    @app.train()
    def train(message: Message, context: Context) -> Message:
        arrays = message.content["arrays"]
        examples = 1
        if model["epochs"]:
            arrays, examples = fit(model, arrays, folder, context.node_config["partition-id"])
        metrics = MetricRecord({"num-examples": examples})
        return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)

    return app


def fit(
    model: dict[str, int], arrays: ArrayRecord, folder: Path, client: int
) -> tuple[ArrayRecord, int]:
    inputs, labels = load_samples(folder / f"client-{client}.npz")
    module = build_module(model)
    module.load_state_dict(arrays.to_torch_state_dict())
    optimizer = torch.optim.Adam(module.parameters(), lr=model["rate_micros"] / 1_000_000)
    for _ in range(model["epochs"]):
        for positions in torch.randperm(len(labels)).split(model["batch_size"]):
            optimizer.zero_grad()
            batch = inputs[positions].float() / 255
            functional.cross_entropy(module(batch), labels[positions]).backward()
            optimizer.step()
    return ArrayRecord(module.state_dict()), len(labels)


@cache
def load_samples(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Read a client's samples once per process, as a simulation's actor may."""
    with np.load(path) as arrays:
        return torch.from_numpy(arrays["inputs"]), torch.from_numpy(arrays["labels"])


def build_module(model: dict[str, int]) -> nn.Sequential:
    height, width = (
        (side - model["kernel"] + 1) // 2 for side in (model["height"], model["width"])
    )
    return nn.Sequential(
        nn.Conv2d(model["channels"], model["filters"], model["kernel"]),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(model["filters"] * height * width, model["outputs"]),
    )


def main() -> None:
    folder, clients = Path(sys.argv[1]), int(sys.argv[2])
    # What Flower and Ray print is no answer.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    model = json.loads((folder / "model.json").read_text())
    server = ServerApp()

    @server.main()
    def serve(grid: Grid, context: Context) -> None:
        if model["epochs"]:
            start = ArrayRecord(build_module(model).state_dict())
        else:
            start = ArrayRecord([np.zeros(model["parameters"], dtype=np.float32)])
        strategy = RoundsOnDemand(clients, answers)
        strategy.start(grid=grid, initial_arrays=start, num_rounds=MANY_ROUNDS)

    cores = os.cpu_count() or 1
    run_simulation(
        server,
        build_client(folder),
        num_supernodes=clients,
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            "init_args": {"num_cpus": cores, "include_dashboard": False},
        },
    )
