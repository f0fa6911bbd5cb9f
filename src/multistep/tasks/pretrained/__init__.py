"""Pretrained models for `model: auto`: which ones are listed, where they are, and which is taken."""
