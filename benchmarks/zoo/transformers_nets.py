"""transformers' detectors of the DETR family and some segmentation heads, small and with random weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from zoo.entry import Architecture

WIDTHS = [16, 32, 48, 64]
SMALL = {"encoder_ffn_dim": 96, "decoder_ffn_dim": 96, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
         "encoder_layers": 2, "decoder_layers": 2, "num_queries": 10, "num_labels": 5}  # fmt: skip
PLAIN = {"use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None}


def _library() -> Any:
    import transformers  # pyright: ignore[reportMissingImports]

    transformers.logging.set_verbosity_error()
    return transformers


def _resnet(kind: str, stages: int) -> Any:
    names = [f"stage{i}" for i in range(5 - stages, 5)]
    return getattr(_library(), kind)(
        embedding_size=16, hidden_sizes=WIDTHS, depths=[1, 1, 1, 1], layer_type="basic", out_features=names
    )


def _detr(name: str, stages: int = 1, width: str = "d_model", **options: Any) -> Callable[[], nn.Module]:
    """Detectors on one map (or several) of a plain ResNet."""

    def build() -> nn.Module:
        library = _library()
        backbone = _resnet("ResNetConfig", stages)
        config = getattr(library, f"{name}Config")(**PLAIN, **SMALL, **{width: 64}, backbone_config=backbone, **options)
        return getattr(library, f"{name}ForObjectDetection")(config)

    return build


def _real_time(name: str) -> Callable[[], nn.Module]:
    """Hybrid encoder over three maps."""

    def build() -> nn.Module:
        library = _library()
        config = getattr(library, f"{name}Config")(
            **{**SMALL, "encoder_layers": 1}, d_model=64, encoder_hidden_dim=64, encoder_in_channels=WIDTHS[1:],
            decoder_in_channels=[64, 64, 64], backbone_config=_resnet("RTDetrResNetConfig", 3), num_denoising=0,
        )  # fmt: skip
        return getattr(library, f"{name}ForObjectDetection")(config)

    return build


def _of(model: str, config: str, **options: Any) -> Callable[[], nn.Module]:
    return lambda: getattr(_library(), model)(getattr(_library(), config)(**options))


def _upernet() -> nn.Module:
    library = _library()
    stages = [f"stage{i}" for i in range(1, 5)]
    backbone = library.ConvNextConfig(hidden_sizes=WIDTHS, depths=[1, 1, 1, 1], out_features=stages)
    config = library.UperNetConfig(backbone_config=backbone, hidden_size=32, auxiliary_in_channels=48, num_labels=5)
    return library.UperNetForSemanticSegmentation(config)


VIT = {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 96}
DETECTORS = {
    "detr": _detr("Detr"),
    "conditional-detr": _detr("ConditionalDetr"),
    "dab-detr": _detr("DabDetr", width="hidden_size"),
    "deformable-detr": _detr("DeformableDetr", 3),
    "deformable-detr refined": _detr("DeformableDetr", 3, with_box_refine=True),
    "table-transformer": _detr("TableTransformer"),
    "rt-detr": _real_time("RTDetr"),
    "rt-detr-v2": _real_time("RTDetrV2"),
    "d-fine": _real_time("DFine"),
    "rf-detr": _of("RfDetrForObjectDetection", "RfDetrConfig", num_labels=5, num_queries=10, d_model=64),
    "yolos": _of("YolosForObjectDetection", "YolosConfig", **VIT, num_hidden_layers=2, image_size=[64, 64],
                 num_detection_tokens=10, num_labels=5),
}  # fmt: skip
DENSE = {
    "segformer": (
        "logits",
        _of("SegformerForSemanticSegmentation", "SegformerConfig", hidden_sizes=WIDTHS, decoder_hidden_size=32,
            num_labels=5),
    ),
    "upernet convnext": ("logits", _upernet),
    "dpt": (
        "predicted_depth",
        _of("DPTForDepthEstimation", "DPTConfig", **VIT, num_hidden_layers=4, image_size=64, fusion_hidden_size=32,
            backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=WIDTHS),
    ),
}  # fmt: skip


def transformers_nets() -> list[Architecture]:
    options: dict[str, Any] = {"needs": "transformers", "peer": False}
    boxes = ("logits", "pred_boxes")
    return [
        *(Architecture(f"hf {n}", "transformers", b, 64, named_result=boxes, **options) for n, b in DETECTORS.items()),
        *(Architecture(f"hf {n}", "transformers", b, 64, named_result=(o,), **options) for n, (o, b) in DENSE.items()),
    ]
