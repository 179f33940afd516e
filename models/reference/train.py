"""Trains a recipe's network: Dice + cross-entropy with deep supervision, AdamW, cosine to zero, weight EMA.

    python train.py --recipe recipes/hippocampus.json --data DATA --out RUN --steps 6000 [--twin]
    torchrun --nproc-per-node 3 train.py ...        # the same batch shared by three GPUs

The number of steps, the seed and the EMA's decay are fixed beforehand; the last step's EMA weights are the
result. Nothing is picked on the validation folds: their Dice is printed at the end for information. Run again
with the same arguments to resume from RUN/checkpoint.pt.

Soft targets against noisy labels (crossfit.sh): for each training fold, train on the others with --save-probabilities,
which writes what that network says of the fold it has not seen; then train on all with --soft FOLDER.
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
from torch import distributed

from augment import random_patches
from data import Canvas, load_cases, load_probabilities, save_probabilities
from nets import build, parameter_groups
from predict import dice_scores, predict_cases
from scan import backend_name


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--recipe", type=Path, required=True)
    p.add_argument("--data", type=Path, required=True)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--twin", action="store_true", help="leave the Mamba layers out (the control)")
    p.add_argument("--train-parts", nargs="+", default=["0", "1", "2"], help="folds or splits of the data's table")
    p.add_argument("--validation-parts", nargs="+", default=["3"])
    p.add_argument("--steps", type=int, required=True)
    p.add_argument("--stop-at", type=int, help="save and stop at this step; the schedule stays that of --steps")
    p.add_argument("--batch", type=int, default=12)
    p.add_argument("--centred", type=float, default=0.0, help="share of patches centred on a labelled voxel")
    p.add_argument("--lr", type=float, default=1e-3)
    p.add_argument("--weight-decay", type=float, default=0.03)
    p.add_argument("--ema", type=float, default=0.999)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--soft", type=Path, help="folder of soft targets, CASE.npz for every training case")
    p.add_argument("--soft-weight", type=float, default=0.5, help="their share of the target; the labels have the rest")
    p.add_argument("--save-probabilities", type=Path,
                   help="folder for the validation cases' probabilities, mirrored if the recipe mirrors")
    p.add_argument("--save-every", type=float, default=60.0, help="seconds between checkpoints")
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument("--mirror-axes", type=int, nargs="*", help="override the recipe's mirror_axes (z, y, x = 0, 1, 2)")
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


class _SumOverProcesses(torch.autograd.Function):
    """Its gradient is summed too: every process goes on to the same loss."""

    @staticmethod
    def forward(ctx, tensor):
        total = tensor.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient):
        total = gradient.clone()
        distributed.all_reduce(total)
        return total


def share(tensor):
    """The sum over the processes of a distributed run; the tensor itself in a run of one."""
    return _SumOverProcesses.apply(tensor) if distributed.is_initialized() else tensor


def dice_ce(logits, target):
    """Cross-entropy minus soft Dice over the whole batch, background left out (nnU-Net's loss).

    target (n, classes, z, y, x): probabilities, one-hot where the labels are hard.
    """
    log_prob = logits.float().log_softmax(1)
    prob, truth = log_prob[:, 1:].exp(), target[:, 1:]
    axes = (0, 2, 3, 4)
    overlap, size = share(torch.stack(((prob * truth).sum(axes), (prob + truth).sum(axes))))
    dice = (2 * overlap + 1e-5) / (size + 1e-5).clamp(min=1e-8)
    return -(target * log_prob).sum(1).mean() - dice.mean()


def deep_loss(outputs, target):
    """Weights 1, 1/2, 1/4, ... from the finest head on, normalised; targets taken to each head's grid by nearest."""
    weights = [0.5 ** i for i in range(len(outputs))]
    loss = 0
    for weight, logits in zip(weights, outputs):
        small = F.interpolate(target, logits.shape[2:], mode="nearest-exact")
        loss = loss + weight / sum(weights) * dice_ce(logits, small)
    return loss


def training_target(label, soft, soft_weight, classes):
    """One-hot labels, mixed with the soft targets where there are any."""
    hard = F.one_hot(label, classes).movedim(-1, 1).float()
    return hard if soft is None else torch.lerp(hard, soft, soft_weight)


def average_gradients(parameters):
    """The mean over the processes of a distributed run, in one message."""
    flat = torch.cat([p.grad.reshape(-1) for p in parameters])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    for p, grad in zip(parameters, flat.split([p.numel() for p in parameters])):
        p.grad.copy_(grad.view_as(p))


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
    if args.mirror_axes is not None:
        recipe["mirror_axes"] = args.mirror_axes
    if args.twin:
        recipe["name"] += "_twin"
        recipe["network"]["mamba"] = {"family": "none"}
    classes, patch = recipe["network"]["classes"], recipe["patch_zyx"]
    rank, processes = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if args.batch % processes:
        raise SystemExit(f"a batch of {args.batch} cannot be shared by {processes} processes")
    device = torch.device(args.device)
    if processes > 1:
        if device.type == "cuda":
            device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(device)
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    args.out.mkdir(parents=True, exist_ok=True)

    training = load_cases(args.data, args.train_parts, recipe, args.max_cases)
    validation = load_cases(args.data, args.validation_parts, recipe, args.max_cases)
    soft = load_probabilities(args.soft, training) if args.soft else None
    canvas = Canvas(training, classes, patch, device, soft)

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
    if rank == 0:
        print(f"{recipe['name']}: {sum(p.numel() for p in weights):,} parameters, {len(training)} training cases, "
              f"{args.steps} steps of {args.batch} on {processes} x {device.type}, scan: {backend_name()}", flush=True)

    def checkpoint_now():
        if rank == 0:
            save(checkpoint, {"net": net.state_dict(), "optimiser": optimiser.state_dict(), "average": average,
                              "step": step, "seconds": seconds + time.time() - begun, "recipe": recipe})

    begun = saved = time.time()
    logged, logged_at, running = step, begun, torch.zeros((), device=device)
    warm = step + 10
    last = min(args.steps, args.stop_at or args.steps)
    while step < last:
        draws = [np.random.default_rng([args.seed, step, i]) for i in range(rank, args.batch, processes)]
        image, label, maps = random_patches(canvas, patch, recipe["mirror_axes"], draws, args.centred)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            outputs = net(image, deep=True)
        loss = deep_loss(outputs, training_target(label, maps, args.soft_weight, classes))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if processes > 1:
            average_gradients(weights)
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
            if rank == 0:
                print(f"step {step} loss {mean:.4f} {(step - logged) / (now - logged_at):.2f} steps/s "
                      f"{seconds + now - begun:.0f} s", flush=True)
            logged, logged_at = step, now
            running.zero_()
        if time.time() - saved > args.save_every:
            checkpoint_now()
            saved = time.time()
    checkpoint_now()
    if processes > 1:
        distributed.destroy_process_group()
    if step == args.steps and rank == 0:
        validate(net, average, validation, recipe, args, device,
                 {"name": recipe["name"], "steps": step, "batch": args.batch, "seconds": seconds + time.time() - begun})


def validate(net, average, cases, recipe, args, device, report):
    """Scores the averaged weights on the validation cases, without mirroring and, if the recipe mirrors, with it
    -> OUT/validation.json."""
    with torch.no_grad():
        for p, a in zip(net.parameters(), average):
            p.copy_(a)
    net.eval()
    report["cases"] = [c.name for c in cases]
    mirrorings = (False, True) if recipe["mirror_axes"] else (False,)
    for mirror in mirrorings:
        rows = []
        for case, logits in predict_cases(net, cases, recipe, mirror, device):
            rows.append(dice_scores(case, logits))
            if mirror == mirrorings[-1] and args.save_probabilities:
                args.save_probabilities.mkdir(parents=True, exist_ok=True)
                save_probabilities(args.save_probabilities, case.name, logits)
        report["dice_mirrored" if mirror else "dice"] = rows
        table = np.array(rows)
        print(f"validation Dice {'with' if mirror else 'without'} mirroring: labels {table.mean(0).round(4)}, "
              f"mean {table.mean():.4f} over {len(cases)} cases", flush=True)
    (args.out / "validation.json").write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
