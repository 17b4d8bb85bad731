"""What channel counts in blocks bring at the same share of FLOPs: time, and what is kept.

    python benchmarks/channel_blocks.py --net COCO=yolov8n.pt=coco.yaml [--net …] [--size 640] [--share 0.5]
        [--runtime onnxruntime --runtime openvino] [--threads 2] [--epochs 0] [--lr 1e-3] [--work FOLDER]
        [--blocks 1 4 8 16]

Each net is pruned and repaired by `method=strong` to the share of the FLOPs, its kept channels in any counts (1), and
in multiples of each of `--blocks` (`round_to`). Timings and accuracy as in latency_target.py. Writes
channel_blocks.json.
"""

from __future__ import annotations

from latency_target import Study, measured, parser

from dcodp.export import Machine
from dcodp.yolo.shrinking import Shrunk


class Blocks(Study):
    """The same share of the FLOPs, in each of `--blocks`."""

    def nets(self, machine: Machine) -> tuple[dict[str, Shrunk], None]:
        return {str(n): self.shrinking.to(0.5, f"flops:{self.chosen.share:g}", n) for n in self.chosen.blocks}, None


if __name__ == "__main__":
    asked = parser(__doc__)
    asked.add_argument("--blocks", type=int, nargs="+", default=[1, 4, 8, 16])
    chosen = asked.parse_args()
    measured(Blocks, chosen, chosen.out / "channel_blocks.json")
