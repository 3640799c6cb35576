"""FBNet's space: 22 layers, 9 candidates, 224 px.

Wu et al., "FBNet: Hardware-Aware Efficient ConvNet Design via Differentiable Neural Architecture Search", CVPR 2019,
arXiv:1812.03443, Tables 1 and 2.

``skip`` is a candidate only where input and output shapes match, so the six layers that change the shape have 8 candidates
and the space has 9^16 * 8^6 = 4.9e20 points (the paper, which allows skips everywhere, states about 1e21).
``expand1``: whether an expansion-1 block has an expansion convolution. Without it the counts of the official FBNet-B and
FBNet-C come out (facebookresearch/mobile-vision); HW-NAS-Bench (arXiv:2103.10584) has it.
"""

from dnas.macro import fbnet_space
from dnas.space import Space

STAGES = ((16, 1, 1), (24, 4, 2), (32, 4, 2), (64, 4, 2), (112, 4, 1), (184, 4, 2), (352, 1, 1))


def SPACE(expand1: bool = False, head: int = 1984, resolution: int = 224, num_classes: int = 1000) -> Space:
    """``head``: width of the last 1x1 convolution (1984 in FBNet-B and C, 1504 in A); ``resolution`` in pixels."""
    return fbnet_space(
        "fbnet", STAGES, stem=16, stem_stride=2, head_width=head, resolution=resolution, num_classes=num_classes,
        expand1=expand1,
    )  # fmt: skip
