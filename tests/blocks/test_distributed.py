"""DistributedDataParallel over two gloo processes equals one process on the whole batch."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from cases import BLOCKS, feature_map, make
from torch.nn.parallel import DistributedDataParallel

NAMES = [name for name in BLOCKS if name != "nl_batch"]  # batch statistics differ by design


def _worker(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    found = {}
    for name in NAMES:
        model = DistributedDataParallel(make(name))
        x = feature_map(batch=4)[2 * rank : 2 * rank + 2]
        model(x).square().mean().backward()  # an unused parameter would raise in the next step
        model.zero_grad()
        model(x).square().mean().backward()
        found[name] = [p.grad for p in model.parameters()]
    if rank == 0:
        torch.save(found, f"{folder}/gradients.pt")
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_available(), reason="this torch has no torch.distributed")
def test_two_processes_equal_one(tmp_path):
    mp.spawn(_worker, args=(str(tmp_path),), nprocs=2)
    found = torch.load(tmp_path / "gradients.pt", weights_only=True)
    for name in NAMES:
        block = make(name)
        block(feature_map(batch=4)).square().mean().backward()
        torch.testing.assert_close(found[name], [p.grad for p in block.parameters()])
