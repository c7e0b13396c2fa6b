"""Does extraction keep NVDEC or the backbone busy, whichever is slower?

10 s videos, 16 random clips each, as in `test_decode.py`. Three times are taken: DALI decoding the wanted frames and
nothing else; the backbone on clips that are there already; and both together, from the files to the features. None
counts its first batch, in which decoders and processes start. Without a GPU the same code runs small, on the CPU, with
VP9, and only has to work.
"""

from __future__ import annotations

import importlib.util
import shutil
import time
from pathlib import Path

import pytest
import torch

pytest.importorskip("nvidia.dali", reason="DALI is not installed (extra dali)")

from nvidia import dali

from scalefast import load_backbone
from scalefast.video import VideoEntry, load_clips_by_dali, train_recipe
from scalefast.video._dali_source import CPU_CODECS, GPU_CODECS, prepare

PROGRAM = Path(__file__).parent / "programs" / "decode_ways.py"
SHARE = 0.9  # of the slower one's own speed
ON_GPU = torch.cuda.is_available()
BATCH = 4


@pytest.fixture(scope="module")
def entries(tmp_path_factory):
    spec = importlib.util.spec_from_file_location("decode_ways", PROGRAM)
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    folder = tmp_path_factory.mktemp("videos")
    how = {} if ON_GPU else {"seconds": 3, "codec": "libvpx-vp9"}
    first = program.render(folder / f"0.{'mp4' if ON_GPU else 'webm'}", **how)
    paths = [first, *(folder / f"{n}{first.suffix}" for n in range(1, 96 if ON_GPU else 6))]
    for path in paths[1:]:
        shutil.copyfile(first, path)
    return [VideoEntry(id=path.name, path=path) for path in paths]


def decoding_alone(samples):
    """Seconds for the wanted frames of all samples, out of the compressed bytes and no further."""
    pipeline = dali.Pipeline(
        batch_size=BATCH,
        num_threads=1,
        device_id=0 if ON_GPU else None,
        exec_dynamic=True,
        prefetch_queue_depth=1,
    )
    with pipeline:
        data = dali.fn.external_source(name="data", dtype=dali.types.UINT8, ndim=1)
        numbers = dali.fn.external_source(name="numbers", dtype=dali.types.INT32, ndim=1)
        device = "mixed" if ON_GPU else "cpu"
        pipeline.set_outputs(dali.fn.decoders.video(data, frames=numbers, device=device))
    pipeline.build()
    begin = 0.0
    for place in range(0, len(samples), BATCH):
        some = samples[place : place + BATCH]
        pipeline.feed_input("data", [sample.data for sample in some])
        pipeline.feed_input("numbers", [sample.numbers for sample in some])
        (output,) = pipeline.run()
        assert len(output) == len(some)
        begin = begin or now()
    return scaled(now() - begin, len(samples))


def backbone_alone(backbone, clips, *, videos):
    """Seconds for the clips of so many videos."""
    backbone(clips)
    begin = now()
    for _ in range(videos - BATCH):
        backbone(clips)
    return scaled(now() - begin, videos)


def together(backbone, entries, recipe):
    """Seconds from the files to the features."""
    begin = 0.0
    for outcome in load_clips_by_dali(entries, recipe, seed=0, device=device_name(), batch_size=BATCH):
        backbone(outcome.result().clips)
        if outcome.index == BATCH - 1:
            begin = now()
    return scaled(now() - begin, len(entries))


def now():
    """The time, once the GPU has done what it was given."""
    if ON_GPU:
        torch.cuda.synchronize()
    return time.perf_counter()


def scaled(seconds, videos):
    """From all videos but a batch to all."""
    return seconds * videos / (videos - BATCH)


def device_name():
    return "cuda" if ON_GPU else "cpu"


def test_decoding_beside_the_backbone(benchmark, entries):
    benchmark.group = "decode on the GPU, with the backbone running beside it"
    backbone = load_backbone("r3d-50" if ON_GPU else "r3d-tiny", device=device_name())
    recipe = train_recipe(
        num_frames=backbone.num_frames, stride=backbone.stride, size=backbone.size, clips=16 if ON_GPU else 2
    )
    codecs = GPU_CODECS if ON_GPU else CPU_CODECS
    samples = [prepare(e.path, recipe, seed=0, video_id=e.id, codecs=codecs) for e in entries]
    assert all(sample.kind == "encoded" for sample in samples)
    (first,) = load_clips_by_dali(entries[:1], recipe, seed=0, device=device_name(), workers=1)
    seconds = {
        "decoding alone": decoding_alone(samples),
        "backbone alone": backbone_alone(backbone, first.result().clips, videos=len(entries)),
    }
    seconds["together"] = benchmark.pedantic(together, args=(backbone, entries, recipe), rounds=1)
    frames = sum(len(sample.numbers) for sample in samples)
    slower = max(seconds["decoding alone"], seconds["backbone alone"])
    benchmark.extra_info.update(
        seconds=seconds, frames=frames, share=slower / seconds["together"], target=SHARE
    )
    if benchmark.enabled and ON_GPU:
        print(
            f"\n{frames / seconds['together']:.0f} frames/s, {slower / seconds['together']:.0%} of the slower one"
        )
        assert slower / seconds["together"] >= SHARE
