"""A sweep on workers: what it consists of, in which order, and who does it.

    jobs        the dense nets and scores that cells share, then the cells: each a job that names those it comes after
    work        what a worker does with a job, wherever it runs
    launching   launcher=… → one of
        serial      one after the other in this process
        pool        processes of this machine (joblib's loky)
        slurm       jobs of SLURM (submitit), chained by its dependencies
        cluster     tasks of a Ray cluster, chained by their results

A job is a plain value with all it needs, so a worker composes nothing and needs the wheel and the shared folders alone.
"""
