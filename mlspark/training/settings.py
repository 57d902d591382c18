"""How a network is trained and a run recovers, as a pipeline's YAML says. Runs anywhere."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from mlspark.pictures.augment import Augmentation
from mlspark.pictures.mixing import Mix
from mlspark.section import Section

Prefix = Annotated[str, Field(pattern=r"^[^.\s]+(\.[^.\s]+)*$")]
"""First parts of the names of a model's parameters: `layers.0` is layers.0.weight and layers.0.bias, not layers.01."""


class OptimizerSettings(Section):
    kind: Literal["adamw", "sgd", "lamb", "lion"] = "adamw"
    """Rule of the steps. lamb scales each parameter's step to the parameter's norm, for large batches; lion takes steps of
    one size, so it wants a tenth of AdamW's learning rate. Both are timm's."""
    learning_rate: Annotated[float, Field(gt=0.0)] = 2e-3
    """Greatest learning rate of the schedule."""
    rates: Mapping[Prefix, Annotated[float, Field(gt=0.0)]] = {}
    """Factors of the learning rate: prefix of parameter names -> factor, like {backbone: 0.1}; the longest prefix counts,
    the other parameters have 1."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 1e-2
    """Share of a weight, times the learning rate, that a step takes off it; for SGD it is added to the gradient."""
    decay_norm_and_bias: bool = True
    """Whether weight decay applies to parameters of one dimension, too: biases and the scales of normalisations."""
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    """Momentum of SGD, the same in all steps; ignored by the others."""
    nesterov: bool = False
    """Whether SGD looks ahead along its momentum (Nesterov); ignored by the others."""
    schedule: Literal["one_cycle", "cosine", "step", "constant"] = "one_cycle"
    """Course of the learning rate: cosine falls to 0 at the end of the run; step multiplies it by `step_factor` every
    `step_epochs`; one_cycle rises and falls; constant stays."""
    warmup_share: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of the steps in which the rate first rises, linearly except for one_cycle; 0: 30 % for one_cycle, else none."""
    cycles: Annotated[int, Field(ge=1)] = 1
    """Equal parts of the run in each of which cosine falls from the greatest rate to 0 (warm restarts; Loshchilov and
    Hutter, ICLR 2017); a divisor of `epochs`. The weights at the end of each are kept, for ensembles of snapshots."""
    step_epochs: Annotated[int, Field(ge=1)] = 10
    step_factor: Annotated[float, Field(gt=0.0, le=1.0)] = 0.1
    clip_norm: Annotated[float, Field(ge=0.0)] = 0.0
    """Greatest norm of all gradients together, to which greater ones are scaled down; 0: no limit."""

    @property
    def is_of_timm(self) -> bool:
        return self.kind in ("lamb", "lion")

    @model_validator(mode="after")
    def _is_possible(self) -> "OptimizerSettings":
        if self.kind == "sgd" and self.nesterov and not self.momentum:
            raise ValueError("nesterov needs momentum above 0; set momentum, or nesterov to false")
        if self.cycles > 1 and self.schedule != "cosine":
            raise ValueError(f"cycles={self.cycles} needs schedule: cosine, got {self.schedule}")
        if self.cycles > 1 and self.warmup_share * self.cycles >= 1:
            raise ValueError(
                f"warmup_share={self.warmup_share:g} is no part of the first of {self.cycles} cycles; lower it"
            )
        return self


class RecoverySettings(Section):
    """How a failed rank is noticed, and what is done about it. None of it changes what is trained."""

    max_restarts: Annotated[int, Field(ge=0)] = 3
    """Most restarts after a failure, each from the newest whole checkpoint."""
    backoff_seconds: Annotated[float, Field(ge=0.0)] = 1.0
    """Seconds before the first restart; doubled before each further one, up to a minute."""
    min_processes: Annotated[int, Field(ge=0)] = 0
    """Least number of ranks to restart with when task slots are lost for good; 0: only num_processes."""
    slots_seconds: Annotated[float, Field(ge=0.0)] = 30.0
    """Seconds that executors of a cluster may take to register, at the start and after a loss."""
    silent_seconds: Annotated[float, Field(ge=1.0)] = 8.0
    """Seconds without a heartbeat after which a rank counts as failed. Ranks send one every quarter of this."""
    start_seconds: Annotated[float, Field(gt=0.0)] = 120.0
    """Seconds that a rank may take until its first heartbeat, and be silent while it imports what it needs."""
    end_seconds: Annotated[float, Field(gt=0.0)] = 30.0
    """Seconds that a rank may take from its result to its end, after which it is ended."""
    collective_seconds: Annotated[float, Field(gt=0.0)] = 120.0
    """Most seconds that a rank waits for the others in one collective operation."""
    storage_seconds: Annotated[float, Field(ge=0.0)] = 60.0
    """Seconds for which a write that fails is tried again."""
    checkpoint_steps: Annotated[int, Field(ge=0)] = 0
    """Steps between two checkpoints within an epoch, besides the one after it; 0: none within an epoch."""
    keep_checkpoints: Annotated[int, Field(ge=1)] = 2
    """Number of newest checkpoints that are kept, besides the best one."""
    resume: bool = True
    """Whether an unfinished run of the same settings and table version is continued."""


class TrainingSettings(Section):
    num_processes: Annotated[int, Field(ge=1)] = 2
    """Number of ranks; each needs a free Spark task slot."""
    use_gpu: bool = False
    """Whether each rank has a GPU of its own; Spark must assign them (spark.task.resource.gpu.amount)."""
    threads_per_rank: Annotated[int, Field(ge=1)] = 1
    """Number of torch's CPU threads in each rank; fixed, because it decides the order of float sums."""
    seed: int = 0
    epochs: Annotated[int, Field(ge=1)] = 12
    global_batch_size: Annotated[int, Field(ge=1)] = 512
    """Rows per optimizer step over all ranks; the last step of an epoch has what is left."""
    accumulation_steps: Annotated[int, Field(ge=1)] = 1
    """Number of parts in which a rank computes its share of a batch, to need less memory."""
    augment: Mapping[str, tuple[Augmentation, ...]] = {}
    """What is done at random to the pictures that a model trains on, in order: name of an image feature -> list of crop,
    resized_crop, flip, color_jitter, rand_augment, trivial_augment, erasing. Drawn from seed, epoch and row id. Rows that
    a model is evaluated on stay as they are."""
    mix: Mix = Mix()
    """MixUp and CutMix of the pictures that a model trains on, after `augment`: for models that read one picture of a row
    and nothing else, and tasks of classes. Drawn from seed, epoch and row id; a row's partner is of its lane and batch. The
    loss that is told of training is that of mixed rows; rows that a model is evaluated on stay as they are."""
    optimizer: OptimizerSettings = OptimizerSettings()
    freeze: tuple[Prefix, ...] = ()
    """Prefixes of the names of parameters that stay as they are at the start; batch norm layers below them use their
    running statistics and take none."""
    unfreeze: Mapping[Annotated[int, Field(ge=2)], tuple[Prefix, ...]] = {}
    """Epoch from which on frozen parameters are trained, 2 or later -> their prefixes: {3: [body.stage4], 5: [body]}."""
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Decay of the weights' moving averages, which are evaluated and kept: decay * average + (1 - decay) * weights after
    each step. 0: the weights themselves are."""
    best: str = ""
    """Metric of the validation rows by which the best epoch is chosen: the one that is evaluated and registered. Empty: the
    task's own, the logarithmic loss of classes and the root mean squared error of numbers."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Epochs without a better validation metric after which training stops; 0: train all epochs."""
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    """Number format of most computations; weights stay float32. fp16 needs a GPU."""
    compile: bool = False
    """Whether the model goes through torch.compile: a minute at the start, faster steps of large models."""
    graph: Literal["auto", "off"] = "auto"
    """auto: a run's only rank records the forward and backward pass of a full batch on its GPU once, as a CUDA graph, and
    replays it in each step, by which small networks gain; where that cannot be, the log says why. off: no recording."""
    channels_last: bool = False
    """Whether images (B, C, H, W) and convolutions use the channels-last memory format."""
    sync_batch_norm: bool = False
    """Whether batch norm takes its statistics over all ranks instead of each rank's; GPU only. Those of rank 0 are kept."""
    shard: bool = False
    """Whether weights, gradients and optimizer state are spread over the ranks (FSDP), for models too large for one GPU."""
    unused_parameters: bool = False
    """Whether each step of several ranks looks for parameters that it did not use, which models with branches need; it takes
    time. Parameters that no step uses are found without it."""
    deterministic: bool = True
    """Whether only operations are used that return the same bits each time; one without such a form is an error."""
    memory_bytes: Annotated[int, Field(ge=0)] = 0
    """Bytes up to which a rank keeps its rows in memory; 0: stream them in each epoch. Changes the order of the rows."""
    profile_steps: Annotated[int, Field(ge=0)] = 0
    """Steps of rank 0 recorded with torch.profiler in RUN/profile/trace.json.gz, after 5 that are left out; 0: none."""
    recovery: RecoverySettings = RecoverySettings()

    @property
    def allows_copies(self) -> bool:
        """Whether ranks may be copies of a process that has imported torch: after a look for CUDA, a copy cannot use it."""
        return not self.use_gpu

    @model_validator(mode="after")
    def _is_consistent(self) -> "TrainingSettings":
        if self.shard and self.ema_decay:
            raise ValueError("shard and ema_decay do not go together; set one of them")
        if self.shard and self.freeze:
            raise ValueError("shard and freeze do not go together; set one of them")
        if self.shard and self.optimizer.is_of_timm:
            raise ValueError(f"shard and optimizer.kind={self.optimizer.kind} do not go together; use adamw or sgd")
        if self.epochs % self.optimizer.cycles:
            raise ValueError(
                f"optimizer.cycles={self.optimizer.cycles} does not divide epochs={self.epochs}; change one"
            )
        if self.optimizer.cycles > 1 and self.patience:
            raise ValueError(
                "patience and optimizer.cycles do not go together: each cycle is needed; set patience to 0"
            )
        if late := [epoch for epoch in self.unfreeze if epoch > self.epochs]:
            raise ValueError(
                f"unfreeze.{late[0]}: there is no such epoch, epochs={self.epochs}; raise it or unfreeze earlier"
            )
        return self
