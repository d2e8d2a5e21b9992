"""The one training loop: train, fine-tune, prune's recovery, QAT and distillation all use it."""
