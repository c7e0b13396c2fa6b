"""CVRL's demo recipe: its clips show what tells the demo's classes."""

from __future__ import annotations

import numpy as np

from scalefast.cvrl import demo
from scalefast.demo.actions import FPS, FRAME_SIZE, SECONDS
from scalefast.demo.scene import draw_scene
from scalefast.video import VideoMeta, sample_clip_pair, train_recipe


def share_of_pairs_with_both_motions(*, num_frames: int, stride: int) -> float:
    """Of 200 pairs from videos of the demo: in how many both clips begin before and end after the change of motion."""
    config, frames, (height, width) = demo(), FPS * SECONDS, FRAME_SIZE
    meta = VideoMeta(
        num_frames=frames, fps=FPS, height=height, width=width, rotation=0, exact=True,
        stated_frames=frames, stated_duration=float(SECONDS), codec="h264", container="mp4",
        pixel_format="yuv420p", note="", decoder="pyav",
    )  # fmt: skip
    recipe = train_recipe(num_frames=num_frames, stride=stride, size=config.encoder.size, clips=2)
    both = []
    for video in range(200):
        random = np.random.Generator(np.random.Philox(key=video))
        change = SECONDS * draw_scene(random, frames=frames).change
        pair = sample_clip_pair(
            meta, recipe, config.views[0], seed=0, video_id=str(video), power=config.interval_power
        )
        both.append(all(clip.t0 < change < clip.t1 for clip in pair))
    return sum(both) / len(both)


def test_both_clips_of_a_pair_show_both_motions():
    encoder = demo().encoder
    assert share_of_pairs_with_both_motions(num_frames=encoder.num_frames, stride=encoder.stride) > 0.9
    assert share_of_pairs_with_both_motions(num_frames=16, stride=encoder.stride) < 0.5
