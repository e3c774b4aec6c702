"""The processes that `torchrun` or `accelerate launch` has started, which do one thing together.

The first of them takes locks, writes files and speaks; all take their share of the work. Without a launcher there is one
process, and nothing here does anything. What the processes tell each other is told through `torch.distributed`, which is not
imported before.
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
# One process may colour large photos while the others have done their share. The dead do not wait: their connections break.
PATIENCE = timedelta(days=1)


def count() -> int:
    """How many processes there are."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def number() -> int:
    """Which of them this one is, from 0."""
    return int(os.environ["RANK"]) if count() > 1 else 0


def is_first() -> bool:
    """Whether this is the one that writes and speaks."""
    return number() == 0


def mine(items: Sequence[T]) -> Sequence[T]:
    """This process's share of what is to be done."""
    return items[number() :: count()]


@cache
def connect() -> str:
    """Meet the other processes, if there are any, and take the GPU that is for this one; returns where sums are exchanged.

    GPUs add up sums between them; everything else that processes tell each other goes over processors.
    """
    if count() == 1:
        return "cpu"
    import torch

    device, backend = "cpu", "gloo"
    if torch.cuda.is_available():
        place, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if place >= gpus:
            raise UsageError(f"more processes than GPUs on this machine, which has {gpus}: start {gpus}")
        device, backend = f"cuda:{place}", "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(device)
    torch.distributed.init_process_group(backend, timeout=PATIENCE)
    return device


@contextmanager
def ending() -> Iterator[None]:
    """With this block the process ends, at its exit code, without taking the interpreter down if it has met others.

    Torch's thread of gloo lets go of the last exchange's tensors a moment after the exchange. If the interpreter is ending by
    then, the thread cannot have its lock, and aborts the process, whose exit code is lost.
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
    """torch.distributed; another process that is gone becomes a PhotochromError."""
    import torch.distributed

    connect()
    try:
        yield torch.distributed
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise PhotochromError(f"the other processes cannot be reached any more ({reason})") from error


def largest(value: int) -> int:
    """The largest of the values that the processes have come with."""
    if count() == 1:
        return value
    import torch

    with _together() as distributed:
        numbers = torch.tensor(int(value), device=connect())
        distributed.all_reduce(numbers, distributed.ReduceOp.MAX)
        return int(numbers)


class OtherProcessFailed(Exception):
    """Another process could not do its part, and has said so by `meet`."""


def meet(trouble: bool = False) -> None:
    """Wait for all processes. If one of them comes in trouble, the others get OtherProcessFailed raised.

    Every exchange of sums begins with this, so that a process that is short of memory keeps nobody waiting.
    """
    if largest(int(trouble)) and not trouble:
        raise OtherProcessFailed


def total(tensor: Tensor) -> Tensor:
    """The sum of the processes' tensors, in the place of each. Raises OtherProcessFailed, see `meet`."""
    if count() > 1:
        meet()
        with _together() as distributed:
            distributed.all_reduce(tensor)
    return tensor


def add_up(tensors: Iterable[Tensor]) -> None:
    """Replace each tensor by its sum over the processes, all in one exchange: hundreds of small ones take four times as long."""
    if count() == 1:
        return
    import torch

    parts = list(tensors)
    flat = total(torch.cat([part.flatten() for part in parts]))
    for part, summed in zip(parts, flat.split([part.numel() for part in parts]), strict=True):
        part.copy_(summed.view_as(part))


def gather(value: T) -> list[T]:
    """What all processes have, in their order, for each of them."""
    if count() == 1:
        return [value]
    values: list[Any] = [None] * count()
    with _together() as distributed:
        distributed.all_gather_object(values, value)
    return values


@contextmanager
def first_before_others() -> Iterator[None]:
    """The first process goes through this block by itself, and then all the others."""
    if not is_first():
        gather(None)
    try:
        yield
    finally:
        if is_first():
            gather(None)


def from_first(make: Callable[[], T]) -> T:
    """What `make` returns in the first process, for all of them; the others wait.

    So what depends on the disk is decided once. If it fails, it fails in all of them, and only the first says why.
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
