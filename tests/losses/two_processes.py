"""What the tests of this folder run on two processes that are one world."""

import multiprocessing
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from wespeaker_lap.engine.dist import World, synchronise_batch_norm
from wespeaker_lap.losses.contrastive import MultiScaleContrastive

PATIENCE = 60.0  # seconds after which a process counts as hung


class Net(nn.Module):
    """Two scales of frames, one made from the other, and their contrastive loss."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 6)
        self.loss = MultiScaleContrastive([4, 6], embed_dim=5, temperature=0.5)

    def forward(self, x: torch.Tensor, speakers: torch.Tensor,
                lengths: torch.Tensor) -> torch.Tensor:
        first = self.first(x).tanh()
        return self.loss([first, self.second(first).tanh()], speakers, lengths)


def run_by_two(folder: Path) -> list[dict]:
    """`contrast` on the halves of the batches in `inputs.pt`; what each process found."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    processes = [context.Process(target=contrast, args=(folder, rank)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(PATIENCE)
    alive = [process for process in processes if process.is_alive()]
    for process in alive:
        process.kill()
        process.join()
    assert not alive and [process.exitcode for process in processes] == [0, 0]
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def contrast(folder: Path, rank: int) -> None:
    """Loss and averaged gradients of the batches' halves, or the error that is raised."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank,
                            world_size=2)
    state, batches = torch.load(folder / "inputs.pt")
    found = []
    for batch in batches:
        net = synchronise_batch_norm(Net().double(), World(rank, 2, torch.device("cpu")))
        net.load_state_dict(state)
        try:
            loss = net(*(part.chunk(2)[rank] for part in batch))
        except ValueError as error:
            found.append(str(error))
            continue
        loss.backward()
        for parameter in net.parameters():  # as DDP does
            dist.all_reduce(parameter.grad)
            parameter.grad /= 2
        found.append((loss.item(), {name: p.grad for name, p in net.named_parameters()}))
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()
