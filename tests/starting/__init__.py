"""Tests of pipeline/starting."""
