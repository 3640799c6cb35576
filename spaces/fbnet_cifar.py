"""FBNet's space for 32 px images, as HW-NAS-Bench prices it: stem stride 1, stage strides 1, 1, 2, 2, 1, 2, 1, head 1504.

Wu et al., FBNet, CVPR 2019, arXiv:1812.03443; Li et al., HW-NAS-Bench, ICLR 2021, arXiv:2103.10584. There an expansion-1
block keeps its expansion convolution (``expand1``). 22 layers, of which 16 have 9 candidates and 6, which change
the shape, 8: 9^16 * 8^6 = 4.9e20 points.
"""

from dnas.macro import fbnet_space
from dnas.space import Space

STAGES = ((16, 1, 1), (24, 4, 1), (32, 4, 2), (64, 4, 2), (112, 4, 1), (184, 4, 2), (352, 1, 1))


def SPACE(expand1: bool = True, head: int = 1504, resolution: int = 32, num_classes: int = 100) -> Space:
    """``head``: width of the last 1x1 convolution; ``resolution`` in pixels."""
    return fbnet_space(
        "fbnet_cifar", STAGES, stem=16, stem_stride=1, head_width=head, resolution=resolution, num_classes=num_classes,
        expand1=expand1,
    )  # fmt: skip
