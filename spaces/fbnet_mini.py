"""FBNet's nine candidates on a macro-architecture for small images: 6 searchable layers at 16 px, minutes on a laptop.

The candidates are those of Wu et al., FBNet, CVPR 2019, arXiv:1812.03443; the macro-architecture is this project's own, for
first searches, tests and notebooks. 3 layers have 9 candidates and 3, which change the shape, 8: 9^3 * 8^3 = 373,248 points.
"""

from dnas.macro import fbnet_space
from dnas.space import Space

STAGES = ((8, 1, 1), (16, 2, 1), (32, 2, 2), (64, 1, 1))


def SPACE(expand1: bool = False, head: int = 128, resolution: int = 16, num_classes: int = 10) -> Space:
    """``head``: width of the last 1x1 convolution; ``resolution`` in pixels."""
    return fbnet_space(
        "fbnet_mini", STAGES, stem=8, stem_stride=2, head_width=head, resolution=resolution, num_classes=num_classes,
        expand1=expand1,
    )  # fmt: skip
