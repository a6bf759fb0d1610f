"""One optimizer step, and the losses of many. Nothing here waits for the device until losses are fetched."""

import contextlib
import inspect
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from engine.config import TrainConfig
from engine.device import precision_of
from engine.distributed import all_reduce, gather_objects, world_size
from engine.progress import Progress, TrainStep
from engine.run import Run
from engine.step_record import NotFinite, StepRecorder, report
from engine.straggler import OwnTime, OwnTimes
from models.library_internals import (
    allow_compiled_variants,
    fused_adamw_skips_steps,
    skip_step_where,
    skip_steps_on_the_host,
)


class Optimization:
    """A model with its optimizer: forward, backward, finite guard, update.

    The guard: after the first loss or gradient that is not finite, the optimizer skips every step, as it is told on the
    device. So the weights are intact when the host learns of it at the next fetch. Only where a fused AdamW cannot be
    told on the device, the host asks before each step.
    """

    def __init__(self, run: Run[TrainConfig], model: nn.Module, train_step: TrainStep) -> None:
        config = run.config
        self.run, self.train_step, self.clip = run, train_step, config.clip_grad_norm
        if config.compile:
            compile_blocks(model)
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=config.init_lr, weight_decay=config.weight_decay, fused=True
        )
        scaled = precision_of(config.precision, run.device) is torch.float16
        self.scaler = torch.amp.GradScaler(run.device.type, enabled=scaled)
        self.broken = torch.zeros((), device=run.device)
        self.skips_on_device = fused_adamw_skips_steps(run.device)
        if not self.skips_on_device:
            skip_steps_on_the_host(self.optimizer)
        self.recorder = StepRecorder(run)
        self.own_time = OwnTime(run.device, self.parameters)
        self.model = model
        if run.world_size > 1:
            # Buffers are equal on all processes (queues take everybody's features), and large: not sent each step.
            # torch 2.14 renamed the argument.
            renamed = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
            options: dict[str, Any] = {"forward_sync_buffers" if renamed else "broadcast_buffers": False}
            self.model = DistributedDataParallel(
                model,
                device_ids=[run.device] if run.device.type == "cuda" else None,
                gradient_as_bucket_view=True,
                **options,
            )

    def step(self, batches: list[dict[str, Any]], progress: Progress, lr: float) -> dict[str, Tensor]:
        """Update the weights by the mean loss of `batches`, moved to the device one at a time.

        Returns the means of what the script's train_step returned, detached, and `grad_norm` and `broken`.
        """
        self.recorder.begin(batches, progress, lr)
        self.own_time.begin()
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        outputs = []
        for number, batch in enumerate(batches):
            with self._sync_gradients(last=number == len(batches) - 1):
                with self.run.autocast(self.run.config.precision):
                    place = replace(progress, batch=number)
                    output = self.train_step(self.model, self.run.to_device(batch), place)
                self.own_time.mark()
                loss = output["loss"] / len(batches)
                if self.scaler.is_enabled():  # it skips a step for gradients that are not finite, and for nothing else
                    loss = loss * torch.where(loss.isfinite() & (self.broken == 0), 1.0, torch.nan)
                self.scaler.scale(loss).backward()
            outputs.append({name: value.detach() for name, value in output.items()})
        means = {name: torch.stack([output[name].float() for output in outputs]).mean() for name in outputs[0]}
        means["grad_norm"] = self._update(means["loss"])
        means["broken"] = self.broken.clone()
        self.recorder.end(self.broken)
        return means

    def _sync_gradients(self, last: bool) -> contextlib.AbstractContextManager[Any]:
        """Average gradients over the processes in the backward pass of the last batch only, once a step."""
        if last or not isinstance(self.model, DistributedDataParallel):
            return contextlib.nullcontext()
        return self.model.no_sync()

    def _update(self, loss: Tensor) -> Tensor:
        """Clip and apply the gradients unless something was not finite; returns their norm before clipping."""
        self.scaler.unscale_(self.optimizer)
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        norm = get_total_norm(gradients)
        if self.clip is not None:
            clip_grads_with_norm_(self.parameters, self.clip, norm)
        if self.scaler.is_enabled():  # it handles infinite gradients itself: it skips the step and scales down
            self.broken = all_reduce(torch.maximum(self.broken, (~loss.isfinite()).float()), dist.ReduceOp.MAX)
            norm = torch.where(norm.isfinite(), norm, 0.0)  # of a skipped step; an average needs a number
        else:
            finite = loss.isfinite() & norm.isfinite()
            self.broken = all_reduce(torch.maximum(self.broken, (~finite).float()), dist.ReduceOp.MAX)
            if self.skips_on_device:
                skip_step_where(self.optimizer, self.broken)
            elif self.broken:  # waits for the device
                return norm
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return norm

    def state_dict(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; weight decay and precision stay those of this run's config.

        Raises ValueError, among others, where it is the state of other parameters.
        """
        expected = [{name: type(value) for name, value in group.items()} for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, kinds in zip(self.optimizer.param_groups, expected, strict=True):
            group["weight_decay"] = self.run.config.weight_decay
            wrong = [name for name, kind in kinds.items() if name != "lr" and type(group.get(name)) is not kind]
            if wrong:
                raise ValueError(f"{wrong[0]} is {group.get(wrong[0])!r}")
        for parameter, moments in self.optimizer.state.items():
            shapes = [moments[name].shape for name in ("exp_avg", "exp_avg_sq")]
            if shapes != [parameter.shape] * 2 or moments["step"].numel() != 1:
                raise ValueError(f"moments of shape {list(shapes[0])} for a parameter of {list(parameter.shape)}")
        if state["scaler"]:  # empty unless it was fp16
            self.scaler.load_state_dict(state["scaler"])


Model = TypeVar("Model", bound=nn.Module)


def unwrap(model: nn.Module, kind: type[Model]) -> Model:
    """The script's own model, of its own class, out of what train_step gets when several processes train."""
    own = model.module if isinstance(model, DistributedDataParallel) else model
    if not isinstance(own, kind):
        raise TypeError(f"expected a {kind.__name__}, found a {type(own).__name__}")
    return own


COMPILED_VARIANTS = 32  # of one piece of code. Pre-training calls a text layer in 13 ways: with images, causally, ...


def compile_blocks(model: nn.Module) -> None:
    """Compile each repeated block (of an `nn.ModuleList` or `nn.Sequential`) in place.

    All blocks of a kind share one compilation for each way of calling them. What is around them is not compiled:
    tokenizing strings would be compiled anew for every string.
    """
    allow_compiled_variants(COMPILED_VARIANTS)
    for module in model.modules():
        if isinstance(module, (nn.ModuleList, nn.Sequential)):
            for block in module:
                block.compile()


class Losses:
    """The scalars of each step: kept on the device until fetched, then summed over the epoch."""

    def __init__(self) -> None:
        self._pending: list[tuple[int, dict[str, Tensor], list[str]]] = []
        self.sums: dict[str, float] = {}
        self.count = 0
        self.own_times: list[OwnTimes] = []  # of each process, as of the last fetch

    def add(self, step: int, values: dict[str, Tensor], files: list[str]) -> None:
        """Keep what step number `step` returned, and the names of the files that its batch was read from."""
        self._pending.append((step, values, files))

    def fetch(self, own_times: Callable[[], OwnTimes] = lambda: (0.0, 0.0)) -> dict[str, float]:
        """Means over the steps since the last fetch and over all processes; waits for the device.

        With them travel the `own_times` of each process, asked for when the device has done all steps.

        Raises NotFinite, on every process, with the first step whose loss or gradient was not finite.
        """
        if not self._pending:
            return {}
        names = list(self._pending[0][1])
        table = torch.stack([torch.stack([values[name].float() for name in names]) for _, values, _ in self._pending])
        broken = table[:, names.index("broken")].cpu().nonzero()  # [steps, names]
        if len(broken):
            self._stop(int(broken[0]), dict(zip(names, table[int(broken[0])].tolist(), strict=True)))
        self._pending = []
        times = torch.zeros(world_size(), 2)
        times[dist.get_rank() if dist.is_initialized() else 0] = torch.tensor(own_times())
        sums = all_reduce(torch.cat([table.flatten(), times.flatten().to(table.device)])).cpu()
        self.own_times = [(data, step) for data, step in sums[table.numel() :].reshape(-1, 2).tolist()]
        table = (sums[: table.numel()].reshape(table.shape) / world_size()).double()
        means = dict(zip(names, table.mean(0).tolist(), strict=True))
        del means["broken"]
        for name in means:
            self.sums[name] = self.sums.get(name, 0.0) + means[name] * len(table)
        self.count += len(table)
        return means

    def _stop(self, row: int, values: dict[str, float]) -> None:
        step, _, files = self._pending[row]
        del values["broken"]
        rank = dist.get_rank() if dist.is_initialized() else 0
        reports = gather_objects([(math.isfinite(values["loss"]), report(rank, values, files))])
        guilty = [text for finite, text in reports if not finite] or [text for _, text in reports]
        raise NotFinite(
            f"step {step}: the loss or its gradient is not finite; the weights are as they were before this step.\n  "
            + "\n  ".join(guilty)
            + "\nLook at these files; lower init_lr, set clip_grad_norm, or train with precision=fp32."
        )

    def state_dict(self) -> dict[str, Any]:
        return {"sums": self.sums, "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on in the middle of an epoch, from what `state_dict` returned."""
        self.sums = {name: float(total) for name, total in state["sums"].items()}
        self.count = int(state["count"])

    def epoch_means(self) -> dict[str, float]:
        """Means over what was fetched since the epoch began."""
        return {name: total / self.count for name, total in self.sums.items()}
