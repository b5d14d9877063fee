"""What a stage is: declaration, graph, parameters, code."""
