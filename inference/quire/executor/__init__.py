"""Where a step runs: `base.Executor` is the seam, `local.LocalExecutor` runs in this process."""
