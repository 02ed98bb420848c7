"""Small networks of kinds that people bring, each with one thing that conversion or pruning may stumble over."""

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize


class Own(nn.Module):
    """A network whose forward pass is a function of its modules and tensors, then of a head."""

    def __init__(self, forward, width, num_classes, **parts):
        super().__init__()
        self._forward = forward
        for name, part in parts.items():
            if isinstance(part, (nn.Module, nn.Parameter)):
                setattr(self, name, part)
            else:
                self.register_buffer(name, part)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))

    def forward(self, x):
        return self.head(self._forward(self, x))


def parameter(*shape):
    return nn.Parameter(torch.randn(shape) * 0.3)


def split_and_gated(num_classes, in_channels):
    """Halves of the channels, one of them through SiLU, and a gated linear unit."""

    def forward(m, x):
        a, b = m.stem(x).chunk(2, 1)
        return functional.glu(torch.cat([functional.silu(m.left(a)), b], 1), 1)

    return Own(forward, 8, num_classes, stem=nn.Conv2d(in_channels, 16, 3, 2, 1), left=nn.Conv2d(8, 8, 1))


def normalised(num_classes, in_channels):
    """Group and instance normalisation, then bilinear interpolation to twice the size."""
    parts = {"stem": nn.Conv2d(in_channels, 12, 3, 2, 1), "group": nn.GroupNorm(3, 12)}
    parts |= {"next": nn.Conv2d(12, 12, 3, padding=1), "instance": nn.InstanceNorm2d(12, affine=True)}

    def forward(m, x):
        x = m.next(m.group(m.stem(x)).relu())
        return functional.interpolate(m.instance(x).relu(), scale_factor=2, mode="bilinear", align_corners=False)

    return Own(forward, 12, num_classes, **parts)


def replicated(num_classes, in_channels):
    """Padding by the border, and adaptive pools to sizes that do not divide the image's."""
    layers = nn.Sequential(
        nn.Conv2d(in_channels, 16, 3, padding=1, padding_mode="replicate"), nn.ELU(), nn.AdaptiveMaxPool2d((3, 4)),
        nn.Conv2d(16, 16, 1), nn.LeakyReLU(), nn.AdaptiveAvgPool2d(2), nn.Mish(),
    )  # fmt: skip
    return Own(lambda m, x: m.layers(x), 16, num_classes, layers=layers)


def in_one_dimension(num_classes, in_channels):
    """Rows as one signal, through a convolution in one dimension and a pool."""

    def forward(m, x):
        return functional.avg_pool1d(m.conv(x.flatten(2)).relu(), 3, 2, ceil_mode=True)[..., None]

    return Own(forward, 16, num_classes, conv=nn.Conv1d(in_channels, 16, 5, 2, 2))


def in_three_dimensions(num_classes, in_channels):
    """The image as a volume of one channel."""

    def forward(m, x):
        return m.conv(x[:, None]).relu().flatten(1, 2)

    return Own(forward, 16, num_classes, conv=nn.Conv3d(1, 16, (in_channels, 3, 3), padding=(0, 1, 1)))


def mixed(num_classes, in_channels):
    """A parameter that mixes positions from the left, and one that mixes channels from the right."""
    parts = {"stem": nn.Conv2d(in_channels, 16, 2, 2), "rows": parameter(8, 16), "columns": parameter(16, 12)}

    def forward(m, x):
        tokens = m.stem(x).flatten(2).transpose(1, 2)
        return ((m.rows @ tokens).relu() @ m.columns).transpose(1, 2)[..., None]

    return Own(forward, 12, num_classes, **parts)


def vision_transformer(num_classes, in_channels):
    """A class token, positions, and one encoder layer."""
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, activation="gelu", batch_first=True, norm_first=True)
    parts = {"stem": nn.Conv2d(in_channels, 16, 4, 4), "layer": layer}
    parts |= {"token": parameter(1, 1, 16), "positions": parameter(1, 5, 16)}

    def forward(m, x):
        tokens = m.stem(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([m.token.expand(x.shape[0], -1, -1), tokens], 1) + m.positions
        return m.layer(tokens)[:, 0, :, None, None]

    return Own(forward, 16, num_classes, **parts)


def blurred(num_classes, in_channels):
    """A fixed filter before each stride, and a second head that is not used."""
    parts = {"stem": nn.Conv2d(in_channels, 16, 3, padding=1), "blur": torch.full((16, 1, 3, 3), 1 / 9)}

    def forward(m, x):
        return functional.conv2d(m.stem(x).relu(), m.blur, stride=2, padding=1, groups=16)

    return Own(forward, 16, num_classes, spare=nn.Linear(16, 3), **parts)


def used_twice(num_classes, in_channels):
    """One convolution with two batch-norms of its own."""
    parts = {"stem": nn.Conv2d(in_channels, 8, 3, 2, 1), "conv": nn.Conv2d(8, 8, 3, padding=1, bias=False)}
    norms = [nn.BatchNorm2d(8) for _ in range(2)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 2)
        nn.init.uniform_(norm.running_mean)

    def forward(m, x):
        return m.second(m.conv(m.first(m.conv(m.stem(x))).relu())).relu()

    return Own(forward, 8, num_classes, first=norms[0], second=norms[1], **parts)


class _Centred(nn.Module):
    def forward(self, weight):
        return weight - weight.mean((1, 2, 3), keepdim=True)


def own_parametrization(num_classes, in_channels):
    """A kernel without mean, as a parametrization; weight norm and spectral norm behind it."""
    first, second = nn.Conv2d(in_channels, 16, 3, 2, 1), parametrizations.weight_norm(nn.Conv2d(16, 16, 3, padding=1))
    parametrize.register_parametrization(first, "weight", _Centred())
    third = parametrizations.spectral_norm(nn.Conv2d(16, 8, 1))
    return Own(
        lambda m, x: m.layers(x), 8, num_classes, layers=nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)
    )


def excited_by_the_largest(num_classes, in_channels):
    """A gate from the largest value, and the mean of several axes."""
    parts = {"stem": nn.Conv2d(in_channels, 16, 3, 2, 1), "down": nn.Linear(16, 4), "up": nn.Linear(4, 16)}

    def forward(m, x):
        x = functional.hardswish(m.stem(x))
        gate = torch.sigmoid(m.up(functional.softplus(m.down(x.amax((2, 3))))))
        return x * gate[..., None, None]

    return Own(forward, 16, num_classes, **parts)


def decoded(num_classes, in_channels):
    """Transposed convolutions with output padding, and a branch that is cut to the same size."""
    up = nn.ConvTranspose2d(8, 8, 3, 2, 1, output_padding=1, bias=False)
    parts = {"stem": nn.Conv2d(in_channels, 8, 3, 2, 1), "up": up, "skip": nn.Conv2d(in_channels, 8, 1)}
    parts |= {"norm": nn.BatchNorm2d(8)}

    def forward(m, x):
        return m.norm(m.up(m.stem(x).relu())) + m.skip(x)[..., : x.shape[2], :]

    return Own(forward, 8, num_classes, **parts)


def shared(num_classes, in_channels):
    """One kernel in two modules, and a matrix that is used as it is and transposed."""
    first, second = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
    second.weight = first.weight
    parts = {"stem": nn.Conv2d(in_channels, 8, 3, 2, 1), "first": first, "second": second, "down": nn.Linear(8, 4)}

    def forward(m, x):
        rows = m.second(m.first(m.stem(x)).relu()).relu().mean((2, 3))
        return (rows + functional.linear(m.down(rows).relu(), m.down.weight.t()))[..., None, None]

    return Own(forward, 8, num_classes, **parts)


def recurrent(num_classes, in_channels):
    """Rows of pixels as a sequence, read in both directions."""
    layer = nn.LSTM(32, 6, batch_first=True, bidirectional=True)

    def forward(m, x):
        rows = m.stem(x).flatten(1, 2).transpose(1, 2)
        return m.layer(rows)[0][:, -1, :, None, None]

    return Own(forward, 12, num_classes, stem=nn.Conv2d(in_channels, 8, 3, 2, 1), layer=layer)


def written_in_place(num_classes, in_channels):
    """Some channels are overwritten, and the largest values of the others are averaged."""

    def forward(m, x):
        y = m.stem(x)
        y[:, :4] = torch.tanh(y[:, 4:8])
        y[:, 8:].mul_(2)
        return y.flatten(2).topk(4, 2).values.mean(2)[..., None, None]

    return Own(forward, 16, num_classes, stem=nn.Conv2d(in_channels, 16, 3, 2, 1))


def lazy(num_classes, in_channels):
    """Layers that get their shapes from the first image, and a `view`, behind a wrapper of parallel training."""
    stem = nn.Sequential(nn.LazyConv2d(12, 3, 2, 1), nn.LazyBatchNorm2d(), nn.ReLU())

    def forward(m, x):
        return m.wide(m.stem(x).view(x.size(0), -1)).relu()[..., None, None]

    return nn.DataParallel(Own(forward, 8, num_classes, stem=stem, wide=nn.LazyLinear(8)))


class _Sign(torch.autograd.Function):
    @staticmethod
    def forward(context, x):
        context.save_for_backward(x)
        return x.sign()

    @staticmethod
    def backward(context, gradient):
        (x,) = context.saved_tensors
        return gradient * (x.abs() <= 1)


def rounded(num_classes, in_channels):
    """Activations of one bit, whose gradient is their own, and then whole numbers."""
    parts = {"stem": nn.Conv2d(in_channels, 16, 3, 2, 1), "norm": nn.BatchNorm2d(16), "next": nn.Conv2d(16, 16, 3)}

    def forward(m, x):
        y = m.next(_Sign.apply(m.norm(m.stem(x))))
        return y + (4 * y).round().sub(4 * y).div(4).detach()

    return Own(forward, 16, num_classes, **parts)


def branching(num_classes, in_channels):
    """Refused: which branch is taken depends on the image."""
    parts = {"stem": nn.Conv2d(in_channels, 8, 3, 2, 1), "other": nn.Conv2d(8, 8, 1)}

    def forward(m, x):
        x = m.stem(x)
        return m.other(x) if x.mean() > 0 else x

    return Own(forward, 8, num_classes, **parts)


def computed_kernel(num_classes, in_channels):
    """Refused: what is zero in the parameter is not zero in the kernel."""

    def forward(m, x):
        return functional.conv2d(x, m.kernel - m.kernel.mean((1, 2, 3), keepdim=True))

    return Own(forward, 8, num_classes, kernel=parameter(8, in_channels, 3, 3))


def squeezed(num_classes, in_channels):
    """Refused: right for a batch, of the wrong shape for one image."""

    class Squeeze(nn.Module):
        def forward(self, x):
            return x.squeeze()

    return nn.Sequential(nn.Conv2d(in_channels, num_classes, 3), nn.AdaptiveAvgPool2d(1), Squeeze())


def divided(num_classes, in_channels):
    """Works as TorchScript only."""
    pool = nn.AvgPool2d(2, divisor_override=3)
    return nn.Sequential(nn.Conv2d(in_channels, 8, 3), pool, nn.Flatten(), nn.Linear(72, num_classes))


def _lacks(operator):
    return {"x86-cpu-sparse": operator, "x86-cpu-sparse-int8": operator}


def _int8_lacks(operator):
    return {"x86-cpu-sparse-int8": operator}


OUTCOMES = {
    "split_and_gated": _int8_lacks("Rearrange"),
    "normalised": _int8_lacks("GroupNorm"),
    "replicated": _int8_lacks("Rearrange"),
    "in_one_dimension": _int8_lacks("Rearrange"),
    "in_three_dimensions": _lacks("Conv"),
    "mixed": _lacks("MatMul"),
    "vision_transformer": _lacks("MatMul"),
    "blurred": {},
    "used_twice": {},
    "own_parametrization": {},
    "excited_by_the_largest": _int8_lacks("Rearrange"),
    "decoded": _int8_lacks("Rearrange"),
    "shared": _int8_lacks("Rearrange"),
    "recurrent": _lacks("LSTM"),
    "written_in_place": _lacks("ScatterND"),
    "lazy": _int8_lacks("Rearrange"),
    "rounded": {**_lacks("Sign"), "x86-cpu-csr": "TorchScript"},
    "branching": "data-dependent",
    "computed_kernel": "parametriz",
    "squeezed": "squeeze",
}
"""Targets that do not work, with the operator that they lack; every other target works. Or words of the refusal."""
