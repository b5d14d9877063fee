"""One training loop for every model: an objective, parameters and data in; nothing model-specific.

    from canvas.train.data import TensorBatches
    from canvas.train.loop import fit

    def objective(model, batch, draws):               # scalar mean loss, what else to report
        noise = draws.normal(*batch["latents"].shape)
        ...
        return loss, {"mse": mse}

    batches = TensorBatches({"pin_id": ids, "latents": latents}, spec.batch_size, spec.seed)
    result = fit(model, objective, batches, spec, checkpoints=scratch.path, log=log.metrics)

What holds for every model: the same command continues a killed run, on CPU to the bit; two processes give the loss
of one with the same global batch to rounding; only parameters that require gradients are trained and saved.
"""
