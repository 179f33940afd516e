"""The selective scan as fast as we could write it in PyTorch for a CPU, three ways.

All have the signature and the result of models/reference/scan.py's selective_scan (u, delta, z (B, D, L);
A (D, N); B, C (B, N, L); D, delta_bias (D)), so they can be put into nets.py. Batch 1 only.

  loop         `steps` tokens unrolled and compiled as one kernel: h, its decay and all sums stay in registers
               and first-level cache; one exponential a state, like the definition
  chunked      scan.py's own: 256 tokens by doubling (Hillis and Steele), states in memory
  associative  torch.associative_scan on the same pairs (decay, input), a few hundred tokens at a time
"""

import torch
import torch.nn.functional as F
from scan import selective_scan_chunked
from torch._higher_order_ops.associative_scan import associative_scan


def _inputs(u, delta, B, C, delta_bias):
    """Rows of tokens: u, delta (L, D); B, C (L, N)."""
    assert u.shape[0] == 1
    delta = F.softplus(delta[0].t() + delta_bias)
    u = u[0].t()
    return u, delta, (delta * u).contiguous(), B[0].t().contiguous(), C[0].t().contiguous()


def _outputs(y, u, D, z):
    return ((y + u * D) * F.silu(z[0].t())).t()[None]


_inputs_compiled = torch.compile(_inputs, dynamic=False)
_outputs_compiled = torch.compile(_outputs, dynamic=False)


def _walk(h, delta, du, A, B, C):
    """Some tokens, one after the other. h, A (D, N); delta, du (T, D); B, C (T, N)."""
    y = []
    for t in range(delta.shape[0]):
        h = torch.exp(delta[t, :, None] * A) * h + du[t, :, None] * B[t]
        y.append((h * C[t]).sum(1))
    return torch.stack(y), h


# Inductor gives up fusing after 64 nodes by default; the whole walk is to be one kernel.
_walk_compiled = torch.compile(_walk, dynamic=False, fullgraph=True, options={"max_fusion_size": 4096})


@torch.compiler.disable
def scan_loop(u, delta, A, B, C, D, z, delta_bias):
    # More tokens a call cost compile time and gain little once a call does 64 K states.
    steps = 32 if A.numel() <= 8192 else 16
    u, delta, du, B, C = _inputs_compiled(u, delta, B, C, delta_bias)
    delta = delta.contiguous()
    h = torch.zeros_like(A)
    y = torch.empty_like(du)
    whole = y.shape[0] - y.shape[0] % steps
    for start in range(0, whole, steps):
        part = slice(start, start + steps)
        y[part], h = _walk_compiled(h, delta[part], du[part], A, B[part], C[part])
    if whole < y.shape[0]:
        y[whole:], h = _walk(h, delta[whole:], du[whole:], A, B[whole:], C[whole:])
    return _outputs_compiled(y, u, D, z)


@torch.compiler.disable
def scan_chunked(u, delta, A, B, C, D, z, delta_bias):
    return selective_scan_chunked(u, delta, A, B, C, D, z, delta_bias)


def _combine(first, second):
    return first[0] * second[0], second[0] * first[1] + second[1]


def _associate(h, delta, du, A, B, C):
    """The same tokens at once."""
    pairs = torch.exp(delta[:, :, None] * A), du[:, :, None] * B[:, None]
    decay, inner = associative_scan(_combine, pairs, dim=0, combine_mode="generic")
    states = inner + decay * h
    return (states * C[:, None]).sum(2), states[-1]


_associate_compiled = torch.compile(_associate, dynamic=False, fullgraph=True)


@torch.compiler.disable
def scan_associative(u, delta, A, B, C, D, z, delta_bias, chunk=128):
    u, delta, du, B, C = _inputs_compiled(u, delta, B, C, delta_bias)
    h = torch.zeros_like(A)
    y = torch.empty_like(du)
    whole = y.shape[0] - y.shape[0] % chunk
    for start in range(0, whole, chunk):
        part = slice(start, start + chunk)
        y[part], h = _associate_compiled(h, delta[part], du[part], A, B[part], C[part])
    if whole < y.shape[0]:
        y[whole:], h = _walk(h, delta[whole:], du[whole:], A, B[whole:], C[whole:])
    return _outputs_compiled(y, u, D, z)


SCANS = {"loop": scan_loop, "chunked": scan_chunked, "associative": scan_associative}
