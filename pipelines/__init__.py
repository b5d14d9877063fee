"""The graph of stages as `dvc.yaml` and as Kubeflow pipelines."""
