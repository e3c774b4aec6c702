"""Coordinates the processes that `torchrun` or `accelerate launch` has started.

All processes share the work. Only the first takes locks, writes files and prints. Without a launcher there is
one process, and this module does nothing. The processes talk through `torch.distributed`, which is imported
only then.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from photochrom.errors import FailedElsewhere, PhotochromError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
# One process may colour large photos while the others have finished. A process that dies breaks its
# connections at once.
PATIENCE = timedelta(days=1)


def count() -> int:
    """The number of processes."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def number() -> int:
    """The number of this process, from 0."""
    return int(os.environ["RANK"]) if count() > 1 else 0


def is_first() -> bool:
    """Whether this process is the one that writes files and prints."""
    return number() == 0


def mine(items: Sequence[T]) -> Sequence[T]:
    """This process's share of the work."""
    return items[number() :: count()]


@cache
def connect() -> str:
    """Connect to the other processes, if any, and select this process's GPU. Returns the device for sums.

    GPUs exchange sums directly; all other messages go through CPUs. Raises UsageError if there are more
    processes than GPUs, or if launchers that restart them could make them wait for each other forever.
    """
    if count() == 1:
        return "cpu"
    _check_launchers()
    import torch

    device, backend = "cpu", "gloo"
    if torch.cuda.is_available():
        place, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if place >= gpus:
            raise UsageError(f"there are more processes than GPUs on this machine: start {gpus}")
        device, backend = f"cuda:{place}", "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(device)
    torch.distributed.init_process_group(backend, timeout=PATIENCE)
    return device


def _check_launchers() -> None:
    """Refuse several launchers that restart processes and keep one store for all starts.

    Each launcher counts its own restarts, and its processes look in the store under that count. Where two
    launchers count differently, one process tries the address of a dead one, and the other waits forever
    (pytorch issue 135712).
    """
    launchers, restarts = (
        int(os.environ.get(name, "0")) for name in ("GROUP_WORLD_SIZE", "TORCHELASTIC_MAX_RESTARTS")
    )
    if launchers > 1 and restarts and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        raise UsageError(
            "after a restart, the processes of several launchers may wait for each other forever: start each "
            "launcher with TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in its environment and --rdzv-backend c10d, "
            "or with --max-restarts 0"
        )


@contextmanager
def ending() -> Iterator[None]:
    """End the process after this block with its exit code, without a shutdown of Python if it was connected.

    Torch's gloo thread releases the tensors of the last exchange a moment after it. If the interpreter is
    shutting down by then, the thread cannot take Python's lock and aborts the process, which loses its exit
    code.
    """
    try:
        yield
    except SystemExit as end:
        torch = sys.modules.get("torch")
        if count() == 1 or torch is None or not torch.distributed.is_initialized():
            raise
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code if isinstance(end.code, int) else int(end.code is not None))


@contextmanager
def _together() -> Iterator[Any]:
    """Give torch.distributed. If another process is gone, raises PhotochromError."""
    import torch.distributed

    connect()
    try:
        yield torch.distributed
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise PhotochromError(f"the other processes do not answer any more ({reason})") from error


def largest(value: int) -> int:
    """The largest of all processes' values."""
    if count() == 1:
        return value
    import torch

    with _together() as distributed:
        numbers = torch.tensor(int(value), device=connect())
        distributed.all_reduce(numbers, distributed.ReduceOp.MAX)
        return int(numbers)


class OtherProcessFailed(Exception):
    """Another process could not do its part, and reported that with `meet`."""


def meet(trouble: bool = False) -> None:
    """Wait for all processes. If one of them reports trouble, this raises OtherProcessFailed in the others.

    Every exchange of sums begins with this, so that no process waits for one that has run out of memory.
    """
    if largest(int(trouble)) and not trouble:
        raise OtherProcessFailed


def total(tensor: Tensor) -> Tensor:
    """Replace each process's tensor by the sum of all. Raises OtherProcessFailed, see `meet`."""
    if count() > 1:
        meet()
        with _together() as distributed:
            distributed.all_reduce(tensor)
    return tensor


def add_up(tensors: Iterable[Tensor]) -> None:
    """Replace each tensor by its sum over the processes.

    All go in one exchange; hundreds of small exchanges take four times as long.
    """
    if count() == 1:
        return
    import torch

    parts = list(tensors)
    flat = total(torch.cat([part.flatten() for part in parts]))
    for part, summed in zip(parts, flat.split([part.numel() for part in parts]), strict=True):
        part.copy_(summed.view_as(part))


def gather(value: T) -> list[T]:
    """Collect the values of all processes, in order, in every process."""
    if count() == 1:
        return [value]
    values: list[Any] = [None] * count()
    with _together() as distributed:
        distributed.all_gather_object(values, value)
    return values


@contextmanager
def first_before_others() -> Iterator[None]:
    """The first process runs this block alone; then the others run it."""
    if not is_first():
        gather(None)
    try:
        yield
    finally:
        if is_first():
            gather(None)


def from_first(make: Callable[[], T]) -> T:
    """Run `make` in the first process, and return its result in all. The others wait.

    So only one process decides what depends on the disk. If it fails, all fail, and only the first says why.
    """
    if count() == 1:
        return make()
    box: list[Any] = [None, None]  # result, exit code of a failure
    try:
        if is_first():
            box[0] = make()
    except BaseException as error:
        box[1] = getattr(error, "exit_code", 1)
        raise
    finally:
        with _together() as distributed:
            distributed.broadcast_object_list(box)
    if box[1] is not None:
        raise FailedElsewhere(box[1])
    result: T = box[0]
    return result
