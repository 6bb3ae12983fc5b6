"""What the tests of this folder run in processes of their own: whole commands, and small parts.

The processes come from a fork server that has imported the package once, so that each starts in
milliseconds. They may be given an accident: at a chosen call of a chosen function they kill
themselves, signal themselves, pause, or fail. Run as a script (under torchrun), this is the command
line of the package with the accident of the variable ACCIDENT.
"""

import importlib
import json
import os
import signal
import sys
import time
import weakref
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from wespeaker_lap import cli
from wespeaker_lap.data.copies import parse_copies
from wespeaker_lap.data.copy_sources import CopySources, load_augmenter
from wespeaker_lap.data.datadir import load_data_dir
from wespeaker_lap.engine import extract
from wespeaker_lap.engine.dist import (
    GlooSyncBatchNorm,
    World,
    _end_with_parent,
    join_world,
    synchronise_batch_norm,
)
from wespeaker_lap.engine.repair import repair_feats
from wespeaker_lap.frontends.ssl import FrozenSSL
from wespeaker_lap.models.layer_pool import LAP

ALL_COPIES = ("clean", "noise", "reverb", "babble", "speed0.9", "speed1.1")
PATIENCE = 60.0  # seconds that anything may wait here before it counts as hung


def run_verb(argv: list[str], log_path: Path, environment: dict, accident: dict | None) -> None:
    """One verb of the command line; ends with its exit code."""
    _begin(log_path, environment)
    if accident:
        plan_accident(**accident)
    sys.argv = ["wespeaker-lap", *map(str, argv)]
    cli.main()


def run_function(name: str, arguments: tuple, log_path: Path, environment: dict,
                 accident: dict | None) -> None:
    """One function of this file."""
    _begin(log_path, environment)
    if accident:
        plan_accident(**accident)
    globals()[name](*arguments)


def _begin(log_path: Path, environment: dict) -> None:
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(environment)
    torch.set_num_threads(1)


def plan_accident(module: str, function: str, call: int, what: str, rank: int | None = None,
                  after: bool = False) -> None:
    """Let something happen at the n-th call of a function, counted from 1.

    Args:
        module: where the function is looked up.
        function: its name, or Class.name.
        call: which call.
        what: SIGKILL, SIGTERM or SIGINT (sent to this process), `pause` (until asked to stop),
            `fail` (a ValueError), or `spoil` (NaN instead of the numbers that it returns).
        rank: of the process that it happens to; None for all.
        after: whether it happens when the function is done, not before.
    """
    if rank is not None and os.environ.get("RANK") != str(rank):
        return
    *owners, name = function.split(".")
    owner = importlib.import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    original, calls = getattr(owner, name), 0

    def disturbed(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == call and not after:
            _happen(what)
        result = original(*args, **kwargs)
        if calls == call and after:
            _happen(what)
        if calls == call and what == "spoil":
            result[...] = float("nan")
        return result

    setattr(owner, name, disturbed)


def _happen(what: str) -> None:
    if what == "fail":
        raise ValueError("the planned accident")
    if what.startswith("SIG"):
        os.kill(os.getpid(), getattr(signal, what))
    if what != "pause":
        return
    request, end = signal.getsignal(signal.SIGTERM).__self__, time.monotonic() + PATIENCE
    while not request.requested and time.monotonic() < end:
        time.sleep(0.01)


def extract_set(data: Path, directory: Path, shard_bytes: int,
                tables: Path | None = None) -> None:
    """Extract with small shards; all copies where there is a folder with noises and rooms."""
    extract.MIN_SHARD_BYTES = shard_bytes
    with join_world("cpu") as world:
        frontend, loaded = FrozenSSL.load("wavlm_tiny"), load_data_dir(data)
        augmenter = tables and load_augmenter(parse_copies(ALL_COPIES), 3, loaded,
                                              find_sources(tables))
        extract.extract_feats(frontend, loaded, directory, "float16", world, None, augmenter)


def extract_by_unlike_machines(data: Path, directory: Path, shard_bytes: int) -> None:
    """Extract in precision "auto" where only the main process's device is one of bf16."""
    extract.MIN_SHARD_BYTES = shard_bytes
    with join_world("cpu") as world:
        extract.choose_precision = lambda name, device: torch.bfloat16 if world.is_main else None
        extract.extract_feats(FrozenSSL.load("wavlm_tiny"), load_data_dir(data), directory,
                              "float16", world, precision="auto")


def repair_set(data: Path, directory: Path, shard_bytes: int,
               tables: Path | None = None) -> None:
    """Repair a store of small shards."""
    extract.MIN_SHARD_BYTES = shard_bytes
    with join_world("cpu") as world:
        frontend, sources = FrozenSSL.load("wavlm_tiny"), CopySources()
        if tables:
            sources = find_sources(tables)
        repair_feats(frontend, load_data_dir(data), directory, world, sources)


def find_sources(tables: Path) -> CopySources:
    """The tables in a folder; babble is made of the set itself."""
    return CopySources(tables / "noise.scp", tables / "rir.scp")


def sync_batch_norm(inputs_path: Path, out_dir: Path) -> None:
    """Two steps of batch norm on this process's half of each batch; writes all that came out."""
    with join_world("cpu") as world:
        found = []
        for batches, upstream in torch.load(inputs_path):
            norm = make_norm(batches[0].shape[1], GlooSyncBatchNorm).to(batches[0].dtype)
            for batch in batches:
                half = batch.chunk(world.size)[world.rank].clone().requires_grad_()
                norm.zero_grad()
                out = norm(half)
                # As DDP sees it: each process has the mean loss of its own part.
                part = upstream.chunk(world.size)[world.rank]
                (world.size * (out * part).sum()).backward()
            for parameter in norm.parameters():
                dist.all_reduce(parameter.grad)
                parameter.grad /= world.size
            # A loss is counted once on each process, so each input sees W times its gradient.
            found.append({"out": out.detach(), "x": half.grad / world.size,
                          "weight": norm.weight.grad, "bias": norm.bias.grad,
                          "mean": norm.running_mean, "var": norm.running_var,
                          "count": norm.num_batches_tracked,
                          "eval": norm.eval()(batches[0]).detach()})
        torch.save(found, out_dir / f"{world.rank}.pt")


def pool_layers(inputs_path: Path, out_dir: Path) -> None:
    """LAP on this process's share of the utterances, the first process having more."""
    with join_world("cpu") as world:
        x, upstream, state, sizes = torch.load(inputs_path)
        own = slice(0, 3) if world.rank == 0 else slice(3, None)
        pool = synchronise_batch_norm(LAP(**sizes).double(), world)
        pool.load_state_dict(state)
        (world.size * (pool(x[own]) * upstream[own]).sum()).backward()
        grads = {name: p.grad for name, p in pool.named_parameters()}
        for grad in grads.values():  # as DDP does
            dist.all_reduce(grad)
            grad /= world.size
        torch.save((grads, dict(pool.named_buffers())), out_dir / f"{world.rank}.pt")


def make_norm(channels: int, kind: type) -> nn.Module:
    """A batch norm with weights that are not 1 and 0."""
    norm = kind(channels)
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 2.0, channels))
        norm.bias.copy_(torch.linspace(-1.0, 1.0, channels))
    return norm


def fail_in_training(out_dir: Path) -> None:
    """Fail with a DDP model in sight; note whether it outlives the process group."""
    models, destroy = [], dist.destroy_process_group

    def look_and_destroy() -> None:
        kept = [model() is not None for model in models]
        (out_dir / f"{dist.get_rank()}.json").write_text(json.dumps(kept))
        destroy()

    dist.destroy_process_group = look_and_destroy
    try:
        with join_world("cpu"):
            _take_a_step_that_fails(models)
    except ValueError as error:
        print("error:", error)


def _take_a_step_that_fails(models: list) -> None:
    model = nn.parallel.DistributedDataParallel(nn.Linear(2, 1))
    models.append(weakref.ref(model))
    model(torch.zeros(1, 2)).sum().backward()
    raise ValueError("the step failed")


def share_numbers(out_dir: Path) -> None:
    """Sum and gather numbers over the processes."""
    with join_world("cpu") as world:
        total = world.sum([1.0 + world.rank, 0.25])
        gathered = world.gather({"rank": world.rank})
        world.barrier()
        (out_dir / f"{world.rank}.json").write_text(json.dumps([total, gathered]))


def leave_a_child(out_dir: Path) -> None:
    """End without a word while a child, as a worker of torchrun would, is at work."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        _end_with_parent()
        os.write(write_end, b"x")
        time.sleep(PATIENCE)
        os._exit(0)
    os.read(read_end, 1)
    (out_dir / "child").write_text(str(child))
    os.kill(os.getpid(), signal.SIGKILL)


def find_missing_late(directory: Path, num_shards: int) -> None:
    """List the missing shards where the second process finds the first shard done already."""
    identity = {"encoder": "none", "num_layers": 3, "dim": 8}
    with join_world("cpu") as world:
        extract.shard_done = lambda folder, shard: world.rank == 1 and shard == 0
        found = extract._find_missing(directory, identity, "float16", num_shards, world)
        (directory / f"{world.rank}.json").write_text(json.dumps(found))


def embed_half(exp_dir: Path, store: Path, utts: list[str], out_dir: Path) -> None:
    """Embed a set as one of several processes."""
    from wespeaker_lap.engine.embed import embed_set
    with join_world("cpu") as world:
        scp = embed_set(exp_dir, store, utts, "joint", world, "epoch_001")
        (out_dir / f"{world.rank}.txt").write_text(str(scp))


ALONE = World(0, 1, torch.device("cpu"))

if __name__ == "__main__":
    if os.environ.get("ACCIDENT"):
        plan_accident(**json.loads(os.environ["ACCIDENT"]))
    torch.set_num_threads(1)
    cli.main()
