"""People rate in MLflow: server, queues, answers."""
