"""Selective scan and causal convolution of the Mamba block, exact, in plain PyTorch.

Shapes follow state-spaces/mamba: u, delta, z (B, D, L); A (D, N); B, C (B, N, L); D, delta_bias (D).

    delta = softplus(delta + delta_bias)              (identity above 20, as torch's softplus)
    h_t   = exp(delta_t * A) h_{t-1} + delta_t * B_t * u_t
    y_t   = (C_t . h_t + D * u_t) * silu(z_t)

`selective_scan` takes the fused CUDA kernels of mamba_ssm where they are importable and the tensors are on
a GPU; everywhere else the chunked version below, which gives the same numbers up to rounding.
"""

import torch
import torch.nn.functional as F

try:
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn as _fused_scan
except ImportError:
    _fused_scan = None
try:
    from causal_conv1d import causal_conv1d_fn as _fused_conv
except ImportError:
    _fused_conv = None

CHUNK = 256


def selective_scan_sequential(u, delta, A, B, C, D, z, delta_bias):
    """The definition, one token after the other. Slow; the truth for tests (use float64)."""
    delta = F.softplus(delta + delta_bias[:, None])
    h = u.new_zeros(u.shape[0], A.shape[0], A.shape[1])
    y = []
    for t in range(u.shape[2]):
        dt = delta[:, :, t, None]
        h = torch.exp(dt * A) * h + dt * B[:, None, :, t] * u[:, :, t, None]
        y.append((h * C[:, None, :, t]).sum(-1))
    return (torch.stack(y, -1) + D[:, None] * u) * F.silu(z)


def _scan_chunk(decay, inp):
    """h_t = decay_t h_{t-1} + inp_t with h_{-1} = 0 along the last axis, by doubling (Hillis and Steele).

    Returns h and the running product of the decays. No quotient and no exp of a positive number occurs,
    so nothing overflows whatever delta and A are.
    """
    step = 1
    while step < inp.shape[-1]:
        inp = torch.cat((inp[..., :step], inp[..., step:] + decay[..., step:] * inp[..., :-step]), -1)
        decay = torch.cat((decay[..., :step], decay[..., step:] * decay[..., :-step]), -1)
        step *= 2
    return inp, decay


def selective_scan_chunked(u, delta, A, B, C, D, z, delta_bias, chunk=CHUNK):
    """Same result, `chunk` tokens at a time; only the state at a chunk's end crosses to the next one."""
    delta = F.softplus(delta + delta_bias[:, None])
    h = u.new_zeros(u.shape[0], A.shape[0], A.shape[1])
    y = []
    for start in range(0, u.shape[2], chunk):
        part = slice(start, start + chunk)
        dt = delta[:, :, None, part]
        inner, decay = _scan_chunk(torch.exp(dt * A[:, :, None]),
                                   dt * B[:, None, :, part] * u[:, :, None, part])
        states = inner + decay * h[..., None]
        h = states[..., -1]
        y.append((states * C[:, None, :, part]).sum(2))
    return (torch.cat(y, -1) + D[:, None] * u) * F.silu(z)


def selective_scan(u, delta, A, B, C, D, z, delta_bias):
    """The fastest exact scan that is at hand."""
    if _fused_scan is not None and u.is_cuda and u.dtype != torch.float64:
        return _fused_scan(u, delta, A, B, C, D, z=z, delta_bias=delta_bias, delta_softplus=True)
    return selective_scan_chunked(u, delta, A, B, C, D, z, delta_bias)


def causal_conv_silu(u, weight, bias):
    """Depthwise convolution that looks back only, then SiLU. u (B, D, L), weight (D, 1, K), bias (D)."""
    if _fused_conv is not None and u.is_cuda and u.dtype != torch.float64:
        return _fused_conv(u, weight.squeeze(1), bias, activation="silu")
    padded = F.pad(u, (weight.shape[-1] - 1, 0))
    return F.silu(F.conv1d(padded, weight, bias, groups=u.shape[1]))


def backend_name():
    """For the log: which scan a GPU run takes."""
    return "mamba_ssm kernels" if _fused_scan is not None else "plain PyTorch, chunked"
