"""Nuclear-norm coupling of all channels: one eigendecomposition against the definition, side by side.

    python benchmarks/nuclear_coupling.py [--channels 32 64 128 256] [--size 40] [--batch 4] [--threads N] [--yolov8n]

The definition is CHIP's published way, a singular value decomposition of the C × hw matrix per channel, here in
float64 so that the numbers can be compared. `--yolov8n` adds the time per image for that detector's layer shapes at
640 px. The best of five runs counts for our side, the single run for the definition where it takes over a second.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from dcodp.importance import direct_nuclear_coupling, nuclear_coupling

YOLOV8N_640 = ((16, 320), (32, 160), (64, 80), (128, 40), (256, 20))  # channels, side of the map


def timed(call: Callable[[], Tensor], repeats: int = 5) -> tuple[Tensor, float]:
    """The result and the shortest wall time in ms; a call of over a second is not repeated."""
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        result = call()
        best = min(best, 1e3 * (time.perf_counter() - start))
        if best > 1e3:
            break
    return result, best


def compare(channels: int, size: int, batch: int) -> str:
    maps = torch.randn(batch, channels, size, size, generator=torch.Generator().manual_seed(channels)).relu()
    nuclear_coupling(maps)  # warm-up: threads and library start
    ours, ours_ms = timed(lambda: nuclear_coupling(maps))
    wanted, direct_ms = timed(lambda: direct_nuclear_coupling(maps))
    error = ((ours - wanted).abs() / wanted).max().item()
    times = f"{direct_ms / batch:14.1f} {ours_ms / batch:12.2f} {direct_ms / ours_ms:9.0f}"
    return f"{channels:5d} {size * size:7d} {times} {error:15.1e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, nargs="+", default=[32, 64, 128, 256])
    parser.add_argument("--size", type=int, default=40, help="side of the maps in pixels")
    parser.add_argument("--batch", type=int, default=4, help="images")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--yolov8n", action="store_true", help="also time YOLOv8n's layer shapes at 640 px")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    print(f"{arguments.batch} images, {torch.get_num_threads()} threads, times in ms per image")
    print(f"{'C':>5} {'hw':>7} {'definition':>14} {'ours':>12} {'ratio':>9} {'max rel. error':>15}")
    for channels in arguments.channels:
        print(compare(channels, arguments.size, arguments.batch), flush=True)
    for channels, size in YOLOV8N_640 if arguments.yolov8n else ():
        maps = torch.randn(arguments.batch, channels, size, size)
        elapsed = timed(lambda maps=maps: nuclear_coupling(maps))[1]
        print(f"({channels}, {size}, {size}): {elapsed / arguments.batch:.2f}")


if __name__ == "__main__":
    main()
