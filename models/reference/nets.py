"""VoxMamba's networks in PyTorch, built from the `network` object of a recipe (models/FORMAT.md).

Tensors are NCDHW (D = z, H = y, W = x). State-dict keys are those of dynamic_network_architectures (nnU-Net)
and, inside the Mamba layers, those of TamingMambas' nets, without their duplicates (`all_modules`,
`decoder.encoder`), so a published checkpoint loads after dropping these.

Sources: Isensee et al., nnU-Net (plain and residual encoder U-Nets); Gu and Dao, Mamba (arXiv:2312.00752);
Lumetti et al., TamingMambas (SegMamba, PanSegMamba, MultiSegMamba, SegMambaSkip); Ma et al., U-Mamba (its
bottleneck layer: LN, then Mamba, no residual; here in the shell that all families share).
"""

import math

import torch
from torch import nn

from scan import causal_conv_silu, selective_scan

# MultiSegMamba's raster orders: the tensor axes (z, y, x) = (0, 1, 2) from slowest to fastest.
MULTI_ORDERS = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (2, 0, 1))


# ---------------------------------------------------------------------------------------------- Mamba
class Mamba(nn.Module):
    """The Mamba-1 block on tokens (B, L, C), L in scan order. D = expand C, R = ceil(C / 16)."""

    def __init__(self, width, d_state, d_conv=4, expand=2):
        super().__init__()
        inner, rank = expand * width, math.ceil(width / 16)
        self.splits = (rank, d_state, d_state)
        self.in_proj = nn.Linear(width, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, d_conv, groups=inner)
        self.x_proj = nn.Linear(inner, rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        self.A_log = nn.Parameter(torch.log(torch.arange(1.0, d_state + 1)).repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, width, bias=False)
        nn.init.uniform_(self.dt_proj.weight, -rank ** -0.5, rank ** -0.5)
        dt = torch.exp(torch.empty(inner).uniform_(math.log(1e-3), math.log(0.1))).clamp(min=1e-4)
        with torch.no_grad():
            self.dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # inverse of softplus

    def forward(self, x):
        u, z = (self.in_proj.weight @ x.transpose(1, 2)).chunk(2, 1)
        u = causal_conv_silu(u, self.conv1d.weight, self.conv1d.bias)
        dt, b, c = (self.x_proj.weight @ u).split(self.splits, 1)
        y = selective_scan(u, self.dt_proj.weight @ dt, -torch.exp(self.A_log), b.contiguous(),
                           c.contiguous(), self.D, z, self.dt_proj.bias)
        return self.out_proj(y.transpose(1, 2))


class MambaTrans(nn.Module):
    """x = Mamba(LN x) + x; x = Linear(LN x) + x. Tokens (B, L, C)."""

    def __init__(self, width, **mamba):
        super().__init__()
        self.mamba = Mamba(width, **mamba)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.head = nn.Linear(width, width)

    def forward(self, x):
        x = self.mamba(self.norm1(x)) + x
        return self.head(self.norm2(x)) + x


class PanMambaTrans(nn.Module):
    """LN(f(x) + flip(b(flip x))): the scan order and its reverse, each with its own weights."""

    def __init__(self, width, **mamba):
        super().__init__()
        self.fwd_mamba = MambaTrans(width, **mamba)
        self.bwd_mamba = MambaTrans(width, **mamba)
        self.norm = nn.LayerNorm(width)

    def forward(self, x):
        return self.norm(self.fwd_mamba(x) + self.bwd_mamba(x.flip(1)).flip(1))


def to_tokens(x, order=(0, 1, 2)):
    """(B, C, z, y, x) -> (B, L, C), raster with `order` from slowest to fastest axis."""
    return x.permute(0, *(2 + a for a in order), 1).flatten(1, 3)


def from_tokens(tokens, dims, order=(0, 1, 2)):
    """Inverse of to_tokens; dims = (z, y, x)."""
    grid = tokens.unflatten(1, [dims[a] for a in order])
    return grid.permute(0, 4, *(1 + order.index(a) for a in range(3)))


class MambaLayer(nn.Module):
    """LN, then `inner`, over the tokens of a grid in raster order (z slowest); no residual around it."""

    def __init__(self, width, inner):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mamba = inner

    def forward(self, x):
        with torch.autocast(x.device.type, enabled=False):
            y = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
            return from_tokens(self.mamba(self.norm(to_tokens(y))), x.shape[2:])


class MultiMambaTrans(nn.Module):
    """Mean of four bidirectional layers on four axis orders."""

    def __init__(self, width, **mamba):
        super().__init__()
        self.mambas = nn.ModuleList(PanMambaTrans(width, **mamba) for _ in MULTI_ORDERS)

    def forward(self, x):
        with torch.autocast(x.device.type, enabled=False):
            y = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
            outs = [from_tokens(m(to_tokens(y, order)), x.shape[2:], order)
                    for m, order in zip(self.mambas, MULTI_ORDERS)]
            return torch.stack(outs).mean(0)


def make_mamba_layer(family, width, bottleneck, d_state_max, d_conv, expand):
    """The layer that `family` puts after a stage of `width` channels; `bottleneck`: it is the last stage."""
    mamba = {"d_state": min(width, d_state_max), "d_conv": d_conv, "expand": expand}
    if family == "umamba_bot":
        mamba["d_state"] = d_state_max
        return MambaLayer(width, Mamba(width, **mamba)) if bottleneck else nn.Identity()
    if family in ("segmamba_skip", "pan_segmamba"):
        return MambaLayer(width, PanMambaTrans(width, **mamba))
    if family == "segmamba":
        return MambaLayer(width, MambaTrans(width, **mamba))
    if family == "multi_segmamba":
        return MultiMambaTrans(width, **mamba)
    raise ValueError(f"unknown Mamba family {family!r}")


# ---------------------------------------------------------------------------------------------- convolutions
class ConvNormAct(nn.Module):
    """conv (same padding), InstanceNorm (eps 1e-5, affine), LeakyReLU 0.01 unless `act` is off."""

    def __init__(self, c_in, c_out, kernel, stride=(1, 1, 1), bias=True, act=True):
        super().__init__()
        self.conv = nn.Conv3d(c_in, c_out, kernel, stride, [(k - 1) // 2 for k in kernel], bias=bias)
        self.norm = nn.InstanceNorm3d(c_out, eps=1e-5, affine=True)
        self.act = act

    def forward(self, x):
        x = self.norm(self.conv(x))
        return nn.functional.leaky_relu(x, 0.01) if self.act else x


class StackedConvs(nn.Module):
    """`count` ConvNormAct; the first one strides."""

    def __init__(self, count, c_in, c_out, kernel, stride, bias):
        super().__init__()
        self.convs = nn.Sequential(*(
            ConvNormAct(c_out if i else c_in, c_out, kernel, (1, 1, 1) if i else stride, bias)
            for i in range(count)))

    def forward(self, x):
        return self.convs(x)


class ResidualBlock(nn.Module):
    """conv-IN-LReLU, conv-IN, plus skip (average pooling if strided, 1x1 conv-IN if the width changes), LReLU."""

    def __init__(self, c_in, c_out, kernel, stride, bias):
        super().__init__()
        self.conv1 = ConvNormAct(c_in, c_out, kernel, stride, bias)
        self.conv2 = ConvNormAct(c_out, c_out, kernel, bias=bias, act=False)
        strided, widened = any(s != 1 for s in stride), c_in != c_out
        self.skip = nn.Sequential()
        if strided:
            self.skip.append(nn.AvgPool3d(stride, stride))
        if widened:
            self.skip.append(ConvNormAct(c_in, c_out, (1, 1, 1), bias=False, act=False))

    def forward(self, x):
        return nn.functional.leaky_relu(self.conv2(self.conv1(x)) + self.skip(x), 0.01)


class StackedResidualBlocks(nn.Module):
    """`count` residual blocks; the first one strides."""

    def __init__(self, count, c_in, c_out, kernel, stride, bias):
        super().__init__()
        self.blocks = nn.Sequential(*(
            ResidualBlock(c_out if i else c_in, c_out, kernel, (1, 1, 1) if i else stride, bias)
            for i in range(count)))

    def forward(self, x):
        return self.blocks(x)


# ---------------------------------------------------------------------------------------------- U-Nets
class Encoder(nn.Module):
    """Stem (residual shells), stages, Mamba layers. Returns the skips, finest first."""

    def __init__(self, cfg):
        super().__init__()
        features, kernels, strides = cfg["features"], cfg["kernels_zyx"], cfg["strides_zyx"]
        bias = cfg.get("conv_bias", True)
        plain = cfg["shell"] == "plain"
        mamba = cfg.get("mamba") or {"family": "none"}
        self.family = mamba["family"]
        c_in = cfg["in_channels"]
        if not plain:
            self.stem = StackedConvs(1, c_in, features[0], kernels[0], (1, 1, 1), bias)
            c_in = features[0]
        stages = []
        for count, width, kernel, stride in zip(cfg["encoder_blocks"], features, kernels, strides):
            if plain:
                stages.append(nn.Sequential(StackedConvs(count, c_in, width, kernel, stride, bias)))
            else:
                stages.append(StackedResidualBlocks(count, c_in, width, kernel, stride, bias))
            c_in = width
        self.stages = nn.ModuleList(stages)
        if self.family != "none":
            self.mamba_layers = nn.ModuleList(
                make_mamba_layer(self.family, width, s == len(features) - 1, mamba["d_state_max"],
                                 mamba["d_conv"], mamba["expand"])
                for s, width in enumerate(features))

    def forward(self, x):
        if hasattr(self, "stem"):
            x = self.stem(x)
        skips = []
        for s, stage in enumerate(self.stages):
            x = stage(x)
            if self.family == "none":
                skips.append(x)
            elif self.family == "segmamba_skip":  # the encoder's own path bypasses the Mamba layer
                skips.append(self.mamba_layers[s](x))
            else:
                x = self.mamba_layers[s](x)
                skips.append(x)
        return skips


class Decoder(nn.Module):
    """Transposed conv, concat (up, skip), convolutions, a 1x1 head a stage; coarsest stage first."""

    def __init__(self, cfg):
        super().__init__()
        features, kernels, strides = cfg["features"], cfg["kernels_zyx"], cfg["strides_zyx"]
        bias = cfg.get("conv_bias", True)
        block = StackedResidualBlocks if cfg["shell"] == "residual_encoder" else StackedConvs
        transpconvs, stages, heads = [], [], []
        for s, count in enumerate(cfg["decoder_blocks"]):
            below, here = features[-1 - s], features[-2 - s]
            transpconvs.append(nn.ConvTranspose3d(below, here, strides[-1 - s], strides[-1 - s], bias=bias))
            stages.append(block(count, 2 * here, here, kernels[-2 - s], (1, 1, 1), bias))
            heads.append(nn.Conv3d(here, cfg["classes"], 1))
        self.transpconvs = nn.ModuleList(transpconvs)
        self.stages = nn.ModuleList(stages)
        self.seg_layers = nn.ModuleList(heads)

    def forward(self, skips, deep):
        x, outputs = skips[-1], []
        for s, stage in enumerate(self.stages):
            up = self.transpconvs[s](x)
            x = stage(torch.cat((up, skips[-2 - s].to(up.dtype)), 1))
            if deep or s == len(self.stages) - 1:
                outputs.append(self.seg_layers[s](x))
        return outputs[::-1] if deep else outputs[-1]


class VoxMambaNet(nn.Module):
    """forward(x, deep=False): logits (B, classes, z, y, x), or with deep all heads, finest first."""

    def __init__(self, cfg):
        super().__init__()
        self.encoder = Encoder(cfg)
        self.decoder = Decoder(cfg)
        self.apply(_init_convolutions)

    def forward(self, x, deep=False):
        return self.decoder(self.encoder(x), deep)


def _init_convolutions(module):
    """nnU-Net's start: He for leaky ReLU, zero biases; a residual block begins as its skip."""
    if isinstance(module, (nn.Conv3d, nn.ConvTranspose3d)):
        nn.init.kaiming_normal_(module.weight, a=0.01)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    if isinstance(module, ResidualBlock):
        nn.init.zeros_(module.conv2.norm.weight)


def build(network):
    """Network from the `network` object of a recipe."""
    return VoxMambaNet(network)


def parameter_groups(net, weight_decay):
    """Optimiser groups: no decay on A_log, D, norms and biases (all of these but A_log are vectors)."""
    decayed, free = [], []
    for name, p in net.named_parameters():
        (free if p.ndim < 2 or name.endswith("A_log") else decayed).append(p)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]
