"""`scalefast pretrain`: train SCALE on a feature store, or straight on videos, without labels."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from scalefast._text import counted
from scalefast.cli._end_to_end import end_to_end
from scalefast.cli._online import OnlineOptions, online_videos

if TYPE_CHECKING:
    from scalefast.training import PretrainConfig

__all__ = ["Args", "read_config", "run"]

_Whole = Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")]
_Real = Annotated[float | None, tyro.conf.arg(metavar="X", help_behavior_hint="")]
_Truth = Annotated[bool | None, tyro.conf.arg(help_behavior_hint="")]


@dataclass(frozen=True, kw_only=True)
class Args(OnlineOptions):
    """Train SCALE on the clip features of a store, without labels, and leave a run folder.

    With --backbone the first argument is videos (a folder, a list, a data set's folder): they are decoded and encoded
    on the way, with fresh clips every epoch.

    What is not given comes from the recipe; with --resume, from the run that goes on. The run folder holds
    the model (model.safetensors, config.json), its log and what --resume needs.

    On N GPUs: torchrun --nproc-per-node N -m scalefast pretrain STORE --out RUN
    """

    store: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="STORE_OR_VIDEOS")]
    """Feature store, as `scalefast extract` or FeatureStore.create left it; or, with --backbone, videos."""

    out: Annotated[Path, tyro.conf.arg(metavar="RUN")]
    """Run folder to make."""

    resume: bool = False
    """Go on with the run in --out from its last checkpoint, exactly as if it had not stopped."""

    overwrite: bool = False
    """Replace the run in --out."""

    device: Annotated[str | None, tyro.conf.arg(metavar="DEVICE", help_behavior_hint="")] = None
    """cpu, cuda or cuda:N. Without it: the GPU if there is one."""

    bank: Literal["auto", "resident", "stream"] = "auto"
    """Where the features lie: in memory, on the disk (read batch by batch), or in memory if they fit. The same
    batches in any case."""

    bank_memory: Annotated[float | None, tyro.conf.arg(metavar="GIB", help_behavior_hint="")] = None
    """GiB that the features may take in memory, in each process (60% of what is free)."""

    recipe: Annotated[
        Literal["paper", "k400", "ucf101", "recommended"] | None, tyro.conf.arg(help_behavior_hint="(k400)")
    ] = None
    """paper: the published values, also called k400; ucf101: with 1000 epochs instead of 200; recommended: with what
    did better on the validation splits of several data sets (docs/ablation.md)."""

    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """JSON object with any of the fields below (learning_rate for --learning-rate); options win."""

    epochs: _Whole = None
    """Passes over the videos (recipe)."""

    batch_size: _Whole = None
    """Videos a step, over all processes; fewer if the store holds fewer (512)."""

    views: _Whole = None
    """Clips in each of the two sets that a step draws from a video (8)."""

    learning_rate: _Real = None
    """Peak learning rate (3e-4)."""

    weight_decay: _Real = None
    """Weight decay of AdamW (1e-4)."""

    warmup_fraction: _Real = None
    """Share of the steps over which the learning rate rises (0.05)."""

    clip_grad_norm: _Real = None
    """Largest norm of the gradient (no limit)."""

    seed: _Whole = None
    """Seed of everything random: weights, order, views, masks, dropout (0)."""

    precision: Annotated[Literal["auto", "fp32", "bf16"] | None, tyro.conf.arg(help_behavior_hint="")] = None
    """Arithmetic; auto takes bf16 where the hardware is fast in it (auto)."""

    hidden_dim: _Whole = None
    """Width of the model, a multiple of 32 (256)."""

    num_layers: _Whole = None
    """Transformer blocks (2)."""

    mlp_ratio: _Real = None
    """Width of a block's MLP as a multiple of --hidden-dim (2)."""

    dropout: _Real = None
    """Dropout probability (0.1)."""

    projection_dim: _Whole = None
    """Dimension in which the losses compare (128)."""

    head_dim: _Whole = None
    """Hidden width of the loss heads on the model's outputs (4096)."""

    target_dim: _Whole = None
    """Hidden width of the loss head on the features (2048)."""

    temperature: _Real = None
    """Temperature of both losses (0.2)."""

    mask_ratio: _Real = None
    """Share of clips that are masked and predicted (0.25)."""

    mcm_weight: _Real = None
    """Weight of masked clip modelling in the loss; 0 leaves it out (0.5; recommended: 0.25)."""

    set_weight: _Real = None
    """Weight of set invariance of CLS in the loss; 0 leaves it out (0.5)."""

    time_weight: _Real = None
    """Weight of set invariance of the course over time, of when the clips change (0; recommended: 0.25)."""

    center_sets: _Truth = None
    """Whether the model sees each clip less the mean of its set (False; recommended: True)."""

    calibrated: _Truth = None
    """Whether inputs and representations are scaled as the training store has it (False; recommended: True)."""

    parts: Annotated[
        tuple[Literal["mean", "std", "refined", "refined_std", "cls", "time"], ...],
        tyro.conf.arg(help_behavior_hint=""),
    ] = ()
    """What a calibrated model's representation is put together of; time: how clips change over the video (mean refined
    refined_std cls; recommended: mean std refined_std cls time; docs/ablation.md)."""

    position_use: Annotated[Literal["all", "time", "none"] | None, tyro.conf.arg(help_behavior_hint="")] = (
        None
    )
    """Which numbers of a clip's position the model sees (all)."""

    same_video: Annotated[Literal["negative", "exclude"] | None, tyro.conf.arg(help_behavior_hint="")] = None
    """Whether clips of a masked clip's own video are its negatives (negative)."""

    target: Annotated[Literal["trained", "fixed", "ema"] | None, tyro.conf.arg(help_behavior_hint="")] = None
    """What masked clips are predicted as: features through a trained or a fixed head, or as a moving average of the
    model refines them (trained; recommended: fixed)."""

    target_momentum: _Real = None
    """Share of itself that this moving average keeps in a step (0.996)."""

    variance_weight: _Real = None
    """Weight of VICReg's variance and covariance terms (0)."""

    koleo_weight: _Real = None
    """Weight of the KoLeo term (0)."""

    log_every: _Whole = None
    """Steps from one line of the log to the next (10)."""

    checkpoint_every: _Whole = None
    """Steps from one checkpoint to the next (about one a minute)."""


def run(args: Args) -> int:
    """Trains, and says where the model lies and how to go on."""
    if args.backbone is not None:
        # Before torch is loaded, as for extract: threads of the backbone that wait then leave the CPUs to the decoders.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from scalefast.training import pretrain

    config = build_config(args)
    try:
        source = online_videos(args.store, args, views=config.views, device=args.device)
        if args.unfreeze_last is not None and source is not None:
            return end_to_end(args, source, config)
        result = pretrain(
            source or args.store,
            out=args.out,
            config=config,
            resume=args.resume,
            overwrite=args.overwrite,
            device=args.device,
            bank=args.bank,
            bank_memory=args.bank_memory,
        )
    except KeyboardInterrupt:
        more = "" if args.backbone is None else " and the other options as before"
        print(
            f"stopped; to go on: scalefast pretrain {args.store} --out {args.out} --resume{more}",
            file=sys.stderr,
        )
        raise
    if result.is_main:
        losses = ", ".join(f"{name} {value:.4f}" for name, value in result.losses.items())
        print(f"{result.folder}: {counted(result.steps, 'step')}; last line of the log: {losses}")
    return 0


def build_config(args: Args) -> PretrainConfig:
    """The configuration that the options mean: recipe (or, resuming, the run's own), then file, then options.

    Raises:
        InputError: a field of the file is unknown, or a value is out of its range.
    """
    from scalefast.training import load_run
    from scalefast.training.recipes import RECIPES
    from scalefast.training.run_folder import RunFolder

    if args.recipe is None and args.resume and RunFolder(args.out).holds_run:
        config = load_run(args.out).config
    else:
        config = RECIPES[args.recipe or "k400"]()
    if args.config is not None:
        config = read_config(args.config, base=config)
    given: dict[str, Any] = {name: getattr(args, name, None) for name in config.to_dict()}
    return config.replace(**{name: value for name, value in given.items() if value not in (None, ())})


def read_config(path: Path, *, base: PretrainConfig) -> PretrainConfig:
    """A configuration file's fields in place of those of `base`.

    Raises:
        InputError: it cannot be read, a field is unknown, or a value is out of its range.
    """
    from scalefast.errors import InputError
    from scalefast.training import PretrainConfig

    try:
        text = path.read_text(encoding="utf-8-sig")  # with or without a byte order mark
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: the configuration cannot be read ({error})") from error
    return PretrainConfig.from_json(text, base=base, source=str(path))
