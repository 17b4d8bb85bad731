"""Detection data, by module: `load` and `check` are the entries, `voc`, `coco` and `shapes` the layouts behind them,
`images` the pixels and their batches, `types` what all of them hand over."""
