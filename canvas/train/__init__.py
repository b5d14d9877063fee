"""One training loop for every model: an objective, parameters and data in; nothing model-specific.

    from canvas.train.data import TensorBatches
    from canvas.train.loop import fit

    def objective(model, batch, draws):               # scalar mean loss, what else to report
        noise = draws.normal(*batch["latents"].shape)
        ...
        return loss, {"mse": mse}

    batches = TensorBatches({"pin_id": ids, "latents": latents}, spec.batch_size, spec.seed)
    result = fit(model, objective, batches, spec, checkpoints=scratch.path, log=log.metrics)

| module | what |
|---|---|
| spec | `TrainSpec`: the numbers of a run, checked once (needs no torch, so stages declare it) |
| loop | `fit`: one function that reads top to bottom |
| player | a model in training; `Adversary` for a discriminator |
| data | `Batches`: the batch of a step is a function of the step; `Order`, `TensorBatches`, `PrefetchedBatches` |
| draws | `Draws`: noise by (seed, step, sample), however the batch is cut up |
| optimizer | AdamW, its parameter groups, the learning rate of a step |
| precision | the number format of a run, on the machine that it meets |
| metric_window | metrics between two logs, and the guard against NaN |
| ema | averages of the weights whose length is chosen afterwards on held-out loss |
| progress | what of a run outlives its process |
| checkpoint | directories of safetensors that are whole or not there |
| distributed | DDP and FSDP2 under torchrun |
| state | what names a run, and torch's global state while it trains |

What holds for every model: the same command continues a killed run, on CPU to the bit; two processes give the loss
of one with the same global batch to rounding; only parameters that require gradients are trained and saved.
"""
