"""EfficientDet (effdet) and the decoders of segmentation-models."""

from __future__ import annotations

from typing import Any

from torch import nn

from zoo.entry import Architecture

EFFICIENTDETS = ("efficientdet_d0", "efficientdet_d1", "tf_efficientdet_lite0", "efficientdetv2_dt", "resdet50",
                 "cspresdext50", "mobiledetv3_large", "tf_efficientdet_d0_ap")  # fmt: skip
DECODERS = ("Unet", "UnetPlusPlus", "MAnet", "Linknet", "FPN", "PSPNet", "PAN", "DeepLabV3", "DeepLabV3Plus", "UPerNet",
            "Segformer")  # fmt: skip
ENCODERS = {"Unet": ("resnet18", "mobilenet_v2", "efficientnet-b0", "mit_b0", "timm-regnetx_002")}

SIZES = {"PAN": 128}


def _efficientdet(name: str) -> nn.Module:
    import effdet  # pyright: ignore[reportMissingImports]

    config = effdet.get_efficientdet_config(name)
    config.image_size, config.num_classes = (128, 128), 5
    return effdet.EfficientDet(config, pretrained_backbone=False)


def _segmentation(decoder: str, encoder: str) -> nn.Module:
    import segmentation_models_pytorch as library  # pyright: ignore[reportMissingImports]

    return getattr(library, decoder)(encoder, encoder_weights=None, classes=3)


def more_nets() -> list[Architecture]:
    options: dict[str, Any] = {"needs": "segmentation_models_pytorch", "peer": False}
    pairs = [(decoder, encoder) for decoder in DECODERS for encoder in ENCODERS.get(decoder, ("resnet18",))]
    return [
        *(
            Architecture(name, "effdet", lambda name=name: _efficientdet(name), 128, needs="effdet", peer=False)
            for name in EFFICIENTDETS
        ),
        *(
            Architecture(
                f"smp {d} {e}", "segmentation-models", lambda d=d, e=e: _segmentation(d, e), SIZES.get(d, 64), **options
            )
            for d, e in pairs
        ),
    ]
