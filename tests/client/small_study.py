"""The smallest study a test can train: two sites, tiny images, two rounds."""

from __future__ import annotations

STUDY_TEXT = """
name: small
preset: robust
seed: 3
data: {classes: [head, abdomen, femur], image_size: 32}
model: {backbone: resnet18, samc_expansion: 1, embedding_dim: 8}
objective: {queue_size: 64}
training: {batch_size: 4, local_steps: 2, learning_rate: 0.01}
federation: {sites: [north, south], rounds: 2}
"""
