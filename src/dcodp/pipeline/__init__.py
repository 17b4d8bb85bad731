"""One cell from configuration to record: every stage returns at once if its artefact is there and complete.

results/cache/dense/<key>/    the dense detector: training state, best.safetensors, its evaluation
        cache/scores/<key>/   one score per channel of every coupling group
        runs/<run id>/        plan.json, finetune/, model.safetensors, record.json, metrics.jsonl, log.txt, pictures.png

Keys are hashes of all settings that decide an artefact, so cells share what they have in common; a file lock lets
cells that start together compute it once.
"""

from dcodp.pipeline.stages import run_cell

__all__ = ["run_cell"]
