"""What runs on the device as it is: standard library, numpy, one runtime, Python 3.9 or later, nothing of pipeline."""
