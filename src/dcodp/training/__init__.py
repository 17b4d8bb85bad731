"""One training loop for every detector: mixed precision, several devices, exact resume.

FOLDER/last.ckpt          everything needed to go on after the last whole epoch; readable with weights_only=True
       best.safetensors   the averaged weights of the best validated epoch
       metrics.jsonl      one line per epoch
       done.json          written last: the training is complete
"""

from dcodp.training.files import load_best
from dcodp.training.loop import train

__all__ = ["load_best", "train"]
