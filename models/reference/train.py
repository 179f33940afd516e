"""Trains a recipe's network: Dice + cross-entropy with deep supervision, AdamW, cosine to zero, weight EMA.

    python train.py --recipe recipes/hippocampus.json --data DATA --out RUN --steps 6000 [--twin]

The number of steps, the seed and the EMA's decay are fixed beforehand; the last step's EMA weights are the
result. Nothing is picked on the validation folds: their Dice is printed at the end for information. Run again
with the same arguments to resume from RUN/checkpoint.pt.
"""

import argparse
import json
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from augment import random_patches
from data import Canvas, load_cases
from nets import build, parameter_groups
from predict import dice_table
from scan import backend_name


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--recipe", type=Path, required=True)
    p.add_argument("--data", type=Path, required=True)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--twin", action="store_true", help="leave the Mamba layers out (the control)")
    p.add_argument("--train-folds", type=int, nargs="+", default=[0, 1, 2])
    p.add_argument("--validation-folds", type=int, nargs="+", default=[3])
    p.add_argument("--steps", type=int, required=True)
    p.add_argument("--stop-at", type=int, help="save and stop at this step; the schedule stays that of --steps")
    p.add_argument("--batch", type=int, default=12)
    p.add_argument("--lr", type=float, default=1e-3)
    p.add_argument("--weight-decay", type=float, default=0.03)
    p.add_argument("--ema", type=float, default=0.999)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--save-every", type=float, default=60.0, help="seconds between checkpoints")
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument("--features", type=int, nargs="+", help="override the recipe's widths (tests)")
    p.add_argument("--patch", type=int, nargs=3, help="override the recipe's patch (tests)")
    p.add_argument("--max-cases", type=int, help="use only so many cases of each part (tests)")
    return p.parse_args()


def learning_rate(step, steps, peak):
    """Linear warm-up over 3 % of the steps, then a cosine to zero."""
    warm = max(1, round(0.03 * steps))
    if step < warm:
        return peak * (step + 1) / warm
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def dice_ce(logits, label):
    """Cross-entropy minus soft Dice over the batch, background left out (nnU-Net's loss)."""
    logits = logits.float()
    prob = logits.softmax(1)[:, 1:]
    onehot = F.one_hot(label, logits.shape[1]).movedim(-1, 1)[:, 1:].to(prob.dtype)
    axes = (0, 2, 3, 4)
    overlap = (prob * onehot).sum(axes)
    dice = (2 * overlap + 1e-5) / (prob.sum(axes) + onehot.sum(axes) + 1e-5).clamp(min=1e-8)
    return F.cross_entropy(logits, label) - dice.mean()


def deep_loss(outputs, label):
    """Weights 1, 1/2, 1/4, ... from the finest head on, normalised; labels taken to each head's grid by nearest."""
    weights = [0.5 ** i for i in range(len(outputs))]
    loss = 0
    for weight, logits in zip(weights, outputs):
        small = F.interpolate(label[:, None].float(), logits.shape[2:], mode="nearest-exact")[:, 0].long()
        loss = loss + weight / sum(weights) * dice_ce(logits, small)
    return loss


def save(path, state):
    """Write, then rename: an interrupted run leaves the previous checkpoint whole."""
    torch.save(state, f"{path}.part")
    os.replace(f"{path}.part", path)


def main():
    args = arguments()
    recipe = json.loads(args.recipe.read_text())
    if args.features:
        recipe["network"]["features"] = args.features
    if args.patch:
        recipe["patch_zyx"] = args.patch
    if args.twin:
        recipe["name"] += "_twin"
        recipe["network"]["mamba"] = {"family": "none"}
    classes, patch = recipe["network"]["classes"], recipe["patch_zyx"]
    device = torch.device(args.device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    args.out.mkdir(parents=True, exist_ok=True)

    training = load_cases(args.data, set(args.train_folds), recipe)[:args.max_cases]
    validation = load_cases(args.data, set(args.validation_folds), recipe)[:args.max_cases]
    canvas = Canvas(training, classes, patch, device)

    torch.manual_seed(args.seed)
    net = build(recipe["network"]).to(device)
    optimiser = torch.optim.AdamW(parameter_groups(net, args.weight_decay), lr=args.lr)
    weights = list(net.parameters())
    average = [p.detach().clone() for p in weights]
    step, seconds, checkpoint = 0, 0.0, args.out / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device)
        net.load_state_dict(state["net"])
        optimiser.load_state_dict(state["optimiser"])
        average, step, seconds = state["average"], state["step"], state["seconds"]
        print(f"resumed at step {step}", flush=True)
    print(f"{recipe['name']}: {sum(p.numel() for p in weights):,} parameters, {len(training)} training cases, "
          f"{args.steps} steps of {args.batch}, {device}, scan: {backend_name()}", flush=True)

    def checkpoint_now():
        save(checkpoint, {"net": net.state_dict(), "optimiser": optimiser.state_dict(), "average": average,
                          "step": step, "seconds": seconds + time.time() - begun, "recipe": recipe})

    begun = saved = time.time()
    logged, logged_at, running = step, begun, torch.zeros((), device=device)
    warm = step + 10
    last = min(args.steps, args.stop_at or args.steps)
    while step < last:
        rng = np.random.default_rng([args.seed, step])
        image, label = random_patches(canvas, patch, args.batch, classes, rng)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            outputs = net(image, deep=True)
        loss = deep_loss(outputs, label)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, args.steps, args.lr)
        optimiser.step()
        step += 1
        # A young average would keep the random start: the decay grows to its fixed value.
        torch._foreach_lerp_(average, [p.detach() for p in weights], 1 - min(args.ema, (1 + step) / (10 + step)))
        running += loss.detach()
        if step % 100 == 0 or step in (warm, last):
            mean, now = running.item() / (step - logged), time.time()
            if not math.isfinite(mean):
                raise SystemExit(f"loss is {mean} at step {step}")
            print(f"step {step} loss {mean:.4f} {(step - logged) / (now - logged_at):.2f} steps/s "
                  f"{seconds + now - begun:.0f} s", flush=True)
            logged, logged_at = step, now
            running.zero_()
        if time.time() - saved > args.save_every:
            checkpoint_now()
            saved = time.time()
    checkpoint_now()
    if step < args.steps:
        return

    with torch.no_grad():
        for p, a in zip(weights, average):
            p.copy_(a)
    net.eval()
    report = {"name": recipe["name"], "steps": step, "batch": args.batch, "seconds": seconds + time.time() - begun,
              "cases": [c.name for c in validation]}
    for mirror in (False, True):
        table = dice_table(net, validation, recipe, mirror, device)
        report["dice_mirrored" if mirror else "dice"] = table.tolist()
        print(f"validation Dice {'with' if mirror else 'without'} mirroring: labels {table.mean(0).round(4)}, "
              f"mean {table.mean():.4f} over {len(validation)} cases", flush=True)
    (args.out / "validation.json").write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
