#!/usr/bin/env python3
"""Write cases.h: axis codes from nibabel, normalised intensities from nnU-Net v2 (the independent truth of
test_orientation.c and test_intensity.c). Needs nibabel and nnunetv2."""
from pathlib import Path

import nibabel as nib
import numpy as np
from nnunetv2.preprocessing.cropping.cropping import create_nonzero_mask
from nnunetv2.preprocessing.normalization import default_normalization_schemes as norm


def numbers(values, per_line=8):
    text = [f"{float(v):.9g}f" if np.asarray(v).dtype == np.float32 else f"{float(v):.17g}" for v in values]
    text = [t if any(c in t for c in ".e") else t.replace("f", ".0f") for t in text]
    return ",\n     ".join(", ".join(text[i:i + per_line]) for i in range(0, len(text), per_line))


def orientation_cases(rng):
    rows = []
    for i in range(120):
        q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        matrix = q * rng.uniform(0.3, 6, 3)
        if i % 3 == 1:  # sheared
            matrix = matrix @ (np.eye(3) + np.triu(rng.uniform(-0.6, 0.6, (3, 3)), 1))
        if i % 3 == 2:  # nearly along the axes
            matrix = np.eye(3)[rng.permutation(3)] * rng.choice([-1, 1], 3) * rng.uniform(0.3, 6, 3)
            matrix = matrix + rng.normal(0, 0.15, (3, 3))
        affine = nib.affines.from_matvec(matrix, rng.uniform(-200, 200, 3))
        rows.append(f'    {{"{"".join(nib.aff2axcodes(affine))}",\n     {{{numbers(affine[:3].ravel(), 4)}}}}}')
    return ",\n".join(rows)


def intensity_cases(rng):
    """Channels of 6 x 5 x 4 (x, y, z): zeros around, a hole inside that channel 1 does not fill."""
    image = np.zeros((2, 4, 5, 6), np.float32)
    image[0, 0:4, 1:4, 1:5] = rng.normal(300, 900, (4, 3, 4)).astype(np.float32)
    image[1, 0:4, 1:4, 2:6] = rng.normal(-3, 2, (4, 3, 4)).astype(np.float32)
    image[:, 1:3, 2, 3] = 0
    inside = np.where(create_nonzero_mask(image), np.int8(0), np.int8(-1))  # as crop_to_nonzero marks it
    ct = {"mean": 90.5, "std": 141.25, "percentile_00_5": -958.25, "percentile_99_5": 1300.75}
    results = {"zscore": [], "zscore_nonzero": [], "ct": [], "rescale01": []}
    for channel in image:
        results["zscore"].append(norm.ZScoreNormalization(False, {}).run(channel.copy(), inside))
        results["zscore_nonzero"].append(norm.ZScoreNormalization(True, {}).run(channel.copy(), inside))
        results["ct"].append(norm.CTNormalization(False, ct).run(channel.copy(), inside))
        results["rescale01"].append(norm.RescaleTo01Normalization(False, {}).run(channel.copy(), inside))
    text = f"static const float intensity_in[240] = {{\n     {numbers(image.ravel())}}};\n"
    for name, channels in results.items():
        values = np.stack(channels).astype(np.float32).ravel()
        text += f"static const float intensity_{name}[240] = {{\n     {numbers(values)}}};\n"
    return text


def main():
    rng = np.random.default_rng(3)
    out = Path(__file__).parent / "cases.h"
    out.write_text("/* Written by write_cases.py with nibabel and nnU-Net. */\n/* clang-format off */\n"
                   "typedef struct orientation_case { const char *code; double affine[12]; } orientation_case;\n"
                   f"static const orientation_case orientation_cases[] = {{\n{orientation_cases(rng)}}};\n"
                   "/* low -958.25, high 1300.75, mean 90.5, sd 141.25 for ct */\n" + intensity_cases(rng))


main()
