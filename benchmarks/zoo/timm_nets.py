"""Backbones of timm, each under a feature pyramid and a detection head that all levels share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.entry import Architecture

BACKBONES = """
resnet18 resnet26d resnet50 resnetv2_50 seresnet50 ecaresnet26t gcresnet33ts skresnet18 resnest14d res2net50_14w_8s
resnetrs50 resnetblur18 mobilenetv1_100 mobilenetv2_050 mobilenetv3_small_050 mobilenetv4_conv_small
mobilenetv4_hybrid_medium mobileone_s0 efficientnet_b0 efficientnet_lite0 efficientnetv2_rw_t tf_efficientnetv2_b0
tinynet_e mnasnet_small mixnet_s fbnetc_100 fbnetv3_b hardcorenas_a lcnet_050 ghostnet_050 ghostnetv2_100 rexnet_100
rexnetr_200 densenet121 dla34 dpn68 hrnet_w18_small vgg11_bn ese_vovnet19b_dw selecsls42b regnetx_002 regnety_002
regnetz_b16 repvgg_a0 cspresnet50 cspdarknet53 darknet53 nf_resnet26 lambda_resnet26t convnext_atto
convnext_tiny convnextv2_atto swin_tiny_patch4_window7_224 pvt_v2_b0 twins_svt_small poolformer_s12 poolformerv2_s12
edgenext_xx_small efficientvit_b0 fastvit_t8 repvit_m0_9 repghostnet_050 starnet_s1 inception_next_atto
focalnet_tiny_srf mobilevit_xxs mobilevitv2_050 hgnetv2_b0 mambaout_femto rdnet_tiny
""".split()  # noqa: SIM905
SIZES = {"swin_tiny_patch4_window7_224": {"img_size": 64}}


class Detector(nn.Module):
    """Laterals and a top-down pathway with additions, and one head of two convolutions for all levels."""

    def __init__(self, backbone: nn.Module, channels: list[int], last: bool, width: int = 32, outputs: int = 9):
        super().__init__()
        self.backbone, self.last = backbone, last
        self.laterals = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in channels)
        self.head = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.SiLU(), nn.Conv2d(width, outputs, 1))

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = [m.movedim(-1, 1) if self.last else m for m in self.backbone(x)]
        merged = [lateral(m) for lateral, m in zip(self.laterals, maps, strict=True)]
        for i in range(len(merged) - 2, -1, -1):
            merged[i] = merged[i] + F.interpolate(merged[i + 1], size=merged[i].shape[2:], mode="nearest")
        return [self.head(smooth(m)) for smooth, m in zip(self.smooth, merged, strict=True)]


def _detector(name: str) -> nn.Module:
    import timm  # pyright: ignore[reportMissingImports]

    options: dict[str, Any] = SIZES.get(name, {})
    backbone = timm.create_model(name, pretrained=False, features_only=True, **options)
    with torch.no_grad():
        shapes = [m.shape for m in backbone.eval()(torch.rand(1, 3, 64, 64))]
    channels = [int(c) for c in backbone.feature_info.channels()]
    last = [s[1] for s in shapes] != channels
    return Detector(backbone, channels, last)


def timm_nets() -> list[Architecture]:
    return [
        Architecture(f"timm {n}", "timm", lambda n=n: _detector(n), 64, needs="timm", peer=False) for n in BACKBONES
    ]
