"""Random training patches on the GPU, in the style of nnU-Net's default augmentation.

Every draw comes from a NumPy generator seeded with (seed, step, place in the batch): two networks trained with one
seed see the same patches, a resumed run goes on with the batches that it would have seen, and processes that share
a batch draw the patches that one process would have drawn.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F

ROTATE_P, SCALE_P, ELASTIC_P = 0.4, 0.4, 0.2
JITTER = 4           # voxels that a patch may slide even where it covers the whole case
ELASTIC_VOXELS = 2.0  # sd of the displacement at the control points, one every ~8 voxels


def random_patches(canvas, patch, mirror_axes, draws, centred=0.0):
    """One patch for each generator of `draws`: image (n, channels, *patch), label (n, *patch) int64 and, where the
    canvas holds soft targets, these (n, classes, *patch), else None; on the canvas's device. Axes are z, y, x.
    `centred`: probability that a patch is centred on a voxel of a label (nnU-Net: a third of them), so that small
    organs in large scans are seen often enough; where the patch would leave the case it slides back.
    """
    index = [int(rng.integers(0, len(canvas.data))) for rng in draws]
    grid = torch.stack([_sampling_grid(canvas, i, patch, centred, rng) for i, rng in zip(index, draws)])
    sampled = F.grid_sample(canvas.data[torch.as_tensor(index, device=canvas.device)], grid,
                            mode="bilinear", padding_mode="zeros", align_corners=True)
    image, maps = sampled[:, :canvas.channels], sampled[:, canvas.channels:].split(canvas.foreground, 1)
    image = torch.stack([_intensity(x, rng) for x, rng in zip(image, draws)])
    label = _with_background(maps[0]).argmax(1)
    soft = _with_background(maps[1]) if len(maps) > 1 else None
    for axis in mirror_axes:
        flip = torch.as_tensor([rng.random() < 0.5 for rng in draws], device=canvas.device)
        image = torch.where(flip[:, None, None, None, None], image.flip(axis + 2), image)
        label = torch.where(flip[:, None, None, None], label.flip(axis + 1), label)
        if soft is not None:
            soft = torch.where(flip[:, None, None, None, None], soft.flip(axis + 2), soft)
    return image, label, soft


def _with_background(maps):
    return torch.cat((1 - maps.sum(1, keepdim=True), maps), 1)


def _sampling_grid(canvas, case, patch, centred, rng):
    """grid_sample coordinates (Z, Y, X, 3 = x y z) of one patch: rotation, scale, elastic, whole-voxel shift."""
    size = np.array(canvas.data.shape[2:])
    slack = np.maximum(canvas.shapes[case] - np.array(patch), 0) / 2 + JITTER
    if centred and rng.random() < centred:
        shift = np.clip(canvas.label_voxel(case, rng) - (size - 1) / 2, -slack, slack)
    else:
        shift = rng.uniform(-slack, slack)
    centre = (size - 1) / 2 + np.round(shift)
    matrix = np.eye(3)
    if rng.random() < ROTATE_P:
        matrix = _rotation(rng.uniform(-math.pi / 6, math.pi / 6, 3)) @ matrix
    if rng.random() < SCALE_P:
        matrix = matrix * (rng.uniform(0.7, 1.0) if rng.random() < 0.5 else rng.uniform(1.0, 1.4))
    axes = [torch.arange(n, dtype=torch.float32, device=canvas.device) - (n - 1) / 2 for n in patch]
    offset = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
    if rng.random() < ELASTIC_P:
        control = rng.normal(0, ELASTIC_VOXELS, (1, 3, *(n // 8 for n in patch)))
        control = torch.as_tensor(control, dtype=torch.float32, device=canvas.device)
        offset = offset + F.interpolate(control, tuple(patch), mode="trilinear")[0].permute(1, 2, 3, 0)
    to_device = dict(dtype=torch.float32, device=canvas.device)
    voxel = offset @ torch.as_tensor(matrix.T, **to_device) + torch.as_tensor(centre, **to_device)
    return (voxel * (2 / torch.as_tensor(size - 1, **to_device)) - 1).flip(-1)


def _rotation(angles):
    """Product of the rotations about z, y and x."""
    out = np.eye(3)
    for axis, a in enumerate(angles):
        r = np.eye(3)
        i, j = [k for k in range(3) if k != axis]
        r[i, i] = r[j, j] = math.cos(a)
        r[i, j], r[j, i] = -math.sin(a), math.sin(a)
        out = out @ r
    return out


def _intensity(x, rng):
    """nnU-Net's intensity transforms with its probabilities on one image (channels, z, y, x)."""
    if rng.random() < 0.1:
        seed = int(rng.integers(2 ** 31))
        noise = torch.randn(x.shape, generator=torch.Generator(x.device).manual_seed(seed), device=x.device)
        x = x + math.sqrt(rng.uniform(0, 0.1)) * noise
    if rng.random() < 0.2:
        x = _blur(x, rng.uniform(0.5, 1.0))
    if rng.random() < 0.15:
        x = x * rng.uniform(0.75, 1.25)
    if rng.random() < 0.15:
        mean, low, high = x.mean(), x.min(), x.max()
        x = ((x - mean) * rng.uniform(0.75, 1.25) + mean).clamp(low, high)
    if rng.random() < 0.25:
        zoom = rng.uniform(0.5, 1.0)
        small = [max(1, round(n * zoom)) for n in x.shape[1:]]
        coarse = F.interpolate(x[None], small, mode="nearest-exact")
        x = F.interpolate(coarse, x.shape[1:], mode="trilinear")[0]
    if rng.random() < 0.1:
        x = -_gamma(-x, rng)
    if rng.random() < 0.3:
        x = _gamma(x, rng)
    return x


def _gamma(x, rng):
    """Gamma on the range of x, mean and sd kept."""
    gamma = rng.uniform(0.7, 1.0) if rng.random() < 0.5 else rng.uniform(1.0, 1.5)
    mean, sd, low = x.mean(), x.std(), x.min()
    span = (x.max() - low).clamp(min=1e-7)
    y = ((x - low) / span) ** gamma * span
    return (y - y.mean()) / y.std().clamp(min=1e-7) * sd + mean


def _blur(x, sigma):
    """Separable Gaussian of sd `sigma` voxels."""
    t = torch.arange(-3, 4, dtype=x.dtype, device=x.device)
    kernel = torch.exp(-t * t / (2 * sigma * sigma))
    kernel = kernel / kernel.sum()
    y = x[:, None]
    for axis in range(3):
        shape, pad = [1, 1, 1, 1, 1], [0] * 6
        shape[2 + axis] = 7
        pad[4 - 2 * axis] = pad[5 - 2 * axis] = 3
        y = F.conv3d(F.pad(y, pad, mode="replicate"), kernel.view(shape))
    return y[:, 0]
