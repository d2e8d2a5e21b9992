"""What a model costs on a machine: time and memory, measured."""
