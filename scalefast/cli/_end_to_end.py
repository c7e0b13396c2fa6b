"""`pretrain VIDEOS --backbone NAME --unfreeze-last N`: the backbone's last blocks train with the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scalefast._text import counted

if TYPE_CHECKING:
    from scalefast.cli.pretrain import Args
    from scalefast.online import OnlineVideos
    from scalefast.training import PretrainConfig

__all__ = ["end_to_end"]


def end_to_end(args: Args, source: OnlineVideos, config: PretrainConfig) -> int:
    """Trains, and says where model and backbone lie.

    Raises:
        InputError: options that have no meaning where the backbone changes.
    """
    from scalefast.cvrl import pretrain_end_to_end
    from scalefast.errors import InputError

    if source.keep is not None:
        raise InputError(
            "--keep stores the features of a frozen backbone; with --unfreeze-last they change every step"
        )
    if source.positions != "paper":
        raise InputError(f"--unfreeze-last takes --positions paper, not {source.positions}")
    result = pretrain_end_to_end(
        source.videos,
        source.backbone,
        out=args.out,
        config=config,
        last=args.unfreeze_last,
        chunk_clips=source.batch_clips,
        recipe=source.recipe,
        resume=args.resume,
        overwrite=args.overwrite,
        device=args.device,
        workers=source.workers,
    )
    if result.is_main:
        losses = ", ".join(f"{name} {value:.4f}" for name, value in result.losses.items())
        print(f"{result.folder}: {counted(result.steps, 'step')}; last line of the log: {losses}")
        print(f"to judge it: scalefast extract VIDEOS --backbone {result.folder}/backbone --out STORE")
    return 0
