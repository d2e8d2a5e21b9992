"""Quantization: one table of rules (scheme), traced networks (trace), fake-quantization (fakequant, prepare), ONNX."""
