"""karui: from PyTorch training to a verified int8 model on a small computer."""
