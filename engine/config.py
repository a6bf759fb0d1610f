"""The config keys that every run has, and those that every training has."""

from dataclasses import dataclass
from typing import Literal

from settings import Settings, check, setting

LONGEST_TIMEOUT = 7 * 24 * 60  # minutes


@dataclass
class RunConfig(Settings):
    """Keys that every script has, evaluations included."""

    precision: Literal["auto", "bf16", "fp16", "fp32"] = setting(
        "auto", "arithmetic of training: auto takes bf16 where the device has it, else fp32 (always on a CPU)"
    )
    eval_precision: Literal["auto", "bf16", "fp16", "tf32", "fp32"] = setting(
        "fp32", "arithmetic of evaluation; tf32, as the 2022 code ran on an A100, is fp32 where the device has no TF32"
    )
    print_freq: int = setting(50, "steps between two progress reports; losses leave the device only then")
    timeout_minutes: float = setting(
        10.0,
        "how long processes wait for one that does not answer, before the run ends; for one that computes alone and "
        "shows that it lives, twelve times as long",
    )

    def __post_init__(self) -> None:
        check(self.print_freq >= 1, "print_freq", self.print_freq, "at least 1")
        possible = 0 < self.timeout_minutes <= LONGEST_TIMEOUT
        check(possible, "timeout_minutes", self.timeout_minutes, f"above 0, at most {LONGEST_TIMEOUT:,}, a week")
        super().__post_init__()


@dataclass
class TrainConfig(RunConfig):
    """Keys that every training has."""

    init_lr: float = setting(1e-5, "learning rate at its highest")
    min_lr: float = setting(0.0, "learning rate at its lowest")
    weight_decay: float = setting(0.05, "AdamW's decay, of every parameter")
    max_epoch: int = setting(1, "epochs to train")
    accumulation_steps: int = setting(1, "batches whose gradients are averaged into one step")
    clip_grad_norm: float | None = setting(None, "largest norm of the gradient; null does not clip")
    compile: bool = setting(False, "compile the transformer blocks with torch.compile")
    save_every: int = setting(
        0, "steps between two saves of checkpoint_last.pth within an epoch; 0 saves at its end only"
    )
    keep_checkpoints: int = setting(1, "how many of the newest checkpoints to resume from are kept")
    tensorboard: bool = setting(True, "write TensorBoard events into the output folder")
    wandb: str | None = setting(None, "Weights & Biases project to report to; needs `pip install wandb`")

    def __post_init__(self) -> None:
        check(self.init_lr > 0, "init_lr", self.init_lr, "above 0")
        check(0 <= self.min_lr <= self.init_lr, "min_lr", self.min_lr, f"from 0 to init_lr = {self.init_lr}")
        check(0 <= self.weight_decay <= 100, "weight_decay", self.weight_decay, "from 0 to 100")
        check(self.max_epoch >= 1, "max_epoch", self.max_epoch, "at least 1")
        check(self.accumulation_steps >= 1, "accumulation_steps", self.accumulation_steps, "at least 1")
        positive = self.clip_grad_norm is None or self.clip_grad_norm > 0
        check(positive, "clip_grad_norm", self.clip_grad_norm, "above 0, or null")
        check(self.save_every >= 0, "save_every", self.save_every, "0 or more")
        check(self.keep_checkpoints >= 1, "keep_checkpoints", self.keep_checkpoints, "at least 1")
        super().__post_init__()
