"""Sliding-window prediction with Gaussian weights and mirroring, as nnU-Net does it, in float32.

For information while training; the product's own `segment` and `evaluate` give the numbers that count.
"""

import itertools

import numpy as np
import torch
from scipy.ndimage import gaussian_filter


def window_starts(size, patch, step=0.5):
    """First voxels of the windows along one axis of `size` >= `patch`."""
    count = int(np.ceil((size - patch) / (patch * step))) + 1
    return [int(np.round((size - patch) / max(count - 1, 1) * i)) for i in range(count)]


def gaussian_weights(patch, device):
    """Blurred unit impulse at the centre (sd = patch / 8), scaled to a maximum of 10; no zeros."""
    w = np.zeros(patch)
    w[tuple(n // 2 for n in patch)] = 1
    w = gaussian_filter(w, [n / 8 for n in patch], mode="constant", cval=0)
    w = w / w.max() * 10
    w[w == 0] = w[w > 0].min()
    return torch.as_tensor(w, dtype=torch.float32, device=device)


@torch.no_grad()
def predict_logits(net, image, patch, mirror_axes):
    """image (channels, z, y, x) on the device -> logits (classes, z, y, x), averaged over all mirrorings."""
    shape = np.array(image.shape[1:])
    before = np.maximum(np.array(patch) - shape, 0) // 2
    after = np.maximum(np.array(patch) - shape, 0) - before
    padded = torch.nn.functional.pad(image, [int(v) for a in (2, 1, 0) for v in (before[a], after[a])])
    weights = gaussian_weights(patch, image.device)
    flips = [[a + 2 for a in c] for n in range(len(mirror_axes) + 1)
             for c in itertools.combinations(mirror_axes, n)]
    total = norm = None
    for start in itertools.product(*(window_starts(s, p) for s, p in zip(padded.shape[1:], patch))):
        box = (slice(None), *(slice(a, a + p) for a, p in zip(start, patch)))
        tile = padded[box][None]
        logits = sum(net(tile.flip(f)).float().flip(f) for f in flips)[0] / len(flips)
        if total is None:
            total = logits.new_zeros(logits.shape[0], *padded.shape[1:])
            norm = torch.zeros_like(total[0])
        total[box] += logits * weights
        norm[box[1:]] += weights
    inner = tuple(slice(int(b), int(b + s)) for b, s in zip(before, shape))
    return (total / norm)[(slice(None), *inner)]


def predict_cases(net, cases, recipe, mirror, device):
    """Yields each case with its logits (classes, z, y, x) on the preprocessed grid."""
    for case in cases:
        axes = recipe["mirror_axes"] if mirror else []
        yield case, predict_logits(net, torch.from_numpy(case.image).to(device), recipe["patch_zyx"], axes)


def dice_scores(case, logits):
    """Dice of each label but the background."""
    mask = logits.argmax(0).cpu().numpy()
    return [2 * np.sum((mask == k) & (case.label == k)) / (np.sum(mask == k) + np.sum(case.label == k))
            for k in range(1, logits.shape[0])]
