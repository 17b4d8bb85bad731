"""One cell from configuration to record: every stage returns at once if its artefact is there and complete.

results/cache/dense/<key>/    the dense detector: training state, best.safetensors, its evaluation
        cache/evidence/<key>/ what calibration images show of it, a file for each statistic
        cache/scores/<key>/   one score per channel of every coupling group
        runs/<run id>/        plan.json, repaired.safetensors, finetune/, model.safetensors, record.json,
                              metrics.jsonl, log.txt, pictures.png; of several steps a folder each

        jobs/<name>/          how the work on what cells share went, where a sweep has made it a job of its own

Keys are hashes of all settings that decide an artefact, so cells share what they have in common; a lease lets cells
that start together compute it once.
"""

from dcodp.pipeline.running import prepare, run_cell

__all__ = ["prepare", "run_cell"]
