"""A data set of stripes that a model learns in a second, as a component file and as a best config that uses it."""

from __future__ import annotations

import hashlib
from pathlib import Path

STRIPES = '''
import torch
import hpsearch

@hpsearch.dataset("stripes")
def stripes(root, *, train):
    """Horizontal and vertical stripes under noise."""
    draws = torch.Generator().manual_seed(1 if train else 2)
    labels = torch.arange(200) % 2
    images = torch.randint(0, 80, (200, 1, 28, 28), generator=draws)
    images[labels == 0, :, ::4, :] += 120
    images[labels == 1, :, :, ::4] += 120
    return images.to(torch.uint8), labels, ("across", "down")
'''

CONFIG = """
format = 1

[model]
name = "lenet5"

[optimizer]
name = "adam"
lr = 0.003

[schedule]
name = "constant"

[trainer]
epochs = 2
batch_size = 32
seed = 3

[data]
dataset = "stripes"
validation_images = 50
split_seed = 1

[provenance]

[[component_files]]
path = "stripes.py"
sha256 = "{sha256}"
"""


def write_stripes(folder: Path, *changes: tuple[str, str]) -> Path:
    """Write the component file and `best.toml` with some of its text replaced; returns the latter."""
    (folder / "stripes.py").write_text(STRIPES)
    text = CONFIG.replace("{sha256}", hashlib.sha256(STRIPES.encode()).hexdigest())
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "best.toml").write_text(text)
    return folder / "best.toml"
