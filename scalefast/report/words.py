"""What the page says about its numbers and pictures."""

from __future__ import annotations

__all__ = [
    "ABOUT_FAILURES",
    "ABOUT_INTERVALS",
    "ABOUT_MAPS",
    "ABOUT_MATRIX",
    "ABOUT_NEIGHBOURS",
    "ABOUT_RESULTS",
]

ABOUT_RESULTS = (
    "Share of test videos whose class is found. Without SCALE one has mean pooling (the mean of the frozen "
    "backbone's clip features), mean + std (their standard deviation beside it), mean + course (three cosines of how "
    "they change over the video) and max pooling; untrained is SCALE with the random weights that training started "
    "from. Ensemble puts the mean beside SCALE's refined clips and CLS, as the paper does; recommended is the same "
    "with each part scaled to length 1, of a calibrated model other parts, which its recipe names, centred and "
    "weighted. "
    "All are measured on the same features, splits and probes. The model is that of the last epoch, and "
    "nothing was chosen by test accuracy, but in a row that is called optimistic."
)
ABOUT_INTERVALS = (
    " The last column compares SCALE's recommended representation with the best baseline on the same videos; "
    "which baseline is best was seen on these videos too, which favours the baseline. Intervals hold 95% of "
    "10,000 bootstrap draws of the test videos: where that of a difference holds 0, another draw could turn "
    "the verdict round."
)
ABOUT_MATRIX = (
    "Each row is a true class, each column what k-NN on SCALE's recommended representation says. Blue is right, "
    "red is wrong; the shade is the share of the row. Rest the pointer on a cell for its numbers."
)
ABOUT_FAILURES = (
    "The test videos that k-NN is most wrong about: those whose own class gets the smallest share of their "
    "neighbours' votes. Beside each the training videos nearest to it, with their cosine similarity in the "
    "space in which k-NN votes. ✓ the same class, ✗ another. Twelve frames of each video play in turn."
)
ABOUT_MAPS = (
    "placed by t-SNE in the space in which k-NN votes: near points are similar videos, while the sizes of "
    "clusters and the distances between them mean little. Colours are the classes, which neither the map nor "
    "SCALE has seen. Rest the pointer on a point to see its video."
)
ABOUT_NEIGHBOURS = (
    "Each test video is the first of its class in the store, so not a chosen one; beside it the training videos "
    "nearest to it, as above."
)
