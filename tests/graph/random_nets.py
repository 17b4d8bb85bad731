"""Random nets of everything that detectors are made of: a list of steps, each reading earlier tensors."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

SIDE = 6
EVEN = ("grouped", "group_norm", "chunk", "slice", "shuffle", "divided", "heads", "read_half", "halves")
OPERATIONS = ("conv", "depthwise", "grouped", "transposed", "norm", "group_norm", "act", "add", "cat", "split",
              "chunk", "slice", "gate", "shuffle", "view", "shared", "scale", "pool",
              "decides", "read_view", "read_half", "layers_number", "twice", "layer_norm", "rms_norm", "one_group",
              "standardised", "heads", "attention", "divided", "halves", "channels_last", "scripted", "scripted_sizes",
              "written", "wavelets")  # fmt: skip


@torch.jit.script
def swish(x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(x)


@torch.jit.script
def over_channels(x: torch.Tensor) -> torch.Tensor:
    return x / x.size(1)


class Standardised(nn.Conv2d):
    """A convolution whose kernels have mean 0 and length 1."""

    def forward(self, x):
        weight = self.weight - self.weight.mean((2, 3), keepdim=True)
        return F.conv2d(x, F.normalize(weight, dim=(2, 3)), self.bias, padding=1)


class Halves(nn.Module):
    """Keeps a number that it divides before it uses it."""

    def __init__(self, c):
        super().__init__()
        self.expand, self.one = c, nn.Conv2d(c // 2, c // 2, 1)

    def forward(self, x):
        one, other = x.split(self.expand // 2, 1)
        return torch.cat([self.one(one), other], 1)


class Attention(nn.Module):
    """Self-attention of two heads over positions, on either of PyTorch's paths."""

    def __init__(self, c, math):
        super().__init__()
        self.heads, self.math = 2, math
        self.q, self.k, self.v = (nn.Linear(c, 8) for _ in range(3))
        self.out = nn.Linear(8, c)

    def forward(self, x):
        t = x.flatten(2).transpose(1, 2)
        q, k, v = (p(t).unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in (self.q, self.k, self.v))
        with sdpa_kernel([SDPBackend.MATH] if self.math else [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]):
            t = self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + t.transpose(1, 2).reshape(x.shape[0], -1, SIDE, SIDE)


class RandomNet(nn.Module):
    """Steps name an operation and two earlier tensors (by number, modulo what fits); each adds new ones."""

    def __init__(self, steps, width):
        super().__init__()
        self.steps, self.wiring, self.layers = steps, [], nn.ModuleDict()
        self.half = width // 2
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.shared = nn.Conv2d(width, width, 1)
        self.again = nn.ModuleList([self.shared, nn.Sequential(self.shared, nn.ReLU())])
        self.scale = nn.Parameter(torch.rand(1, width, 1, 1) + 0.5)
        self.register_buffer("filters", torch.tensor([[1.0, 1.0], [1.0, -1.0]]).view(2, 1, 2, 1))
        self.out = nn.LazyConv2d(3, 1)

    def layer(self, name, build):
        if name not in self.layers:
            self.layers[name] = build()
        return self.layers[name].to(torch.float64)

    def forward(self, x):
        """The first call fixes the wiring: a pruned net has other shapes and must not choose operands by them."""
        first = not self.wiring
        tensors = [self.stem(x)]
        for number, (operation, a, b) in enumerate(self.steps):
            if first:
                left = a % len(tensors)
                fitting = [i for i, t in enumerate(tensors) if t.shape == tensors[left].shape]
                self.wiring.append((left, fitting[b % len(fitting)], self._applies(operation, tensors[left])))
            left, right, applies = self.wiring[number]
            step = getattr(self, f"_{operation}") if applies else self._act
            tensors += step(f"{operation}{number}", tensors[left], tensors[right])
        return self.out(torch.cat(tensors[-3:], 1))

    def _applies(self, operation, x):
        if operation in ("shared", "twice", "scale", "split"):
            return x.shape[1] == self.stem.out_channels
        return operation not in EVEN or x.shape[1] % 2 == 0

    def _conv(self, name, x, _):
        return [self.layer(name, lambda: nn.Conv2d(x.shape[1], 8, 3, padding=1))(x)]

    def _depthwise(self, name, x, _):
        return [self.layer(name, lambda: nn.Conv2d(x.shape[1], x.shape[1], 3, padding=1, groups=x.shape[1]))(x)]

    def _grouped(self, name, x, _):
        return [self.layer(name, lambda: nn.Conv2d(x.shape[1], 2 * x.shape[1], 1, groups=2))(x)]

    def _transposed(self, name, x, _):
        return [self.layer(name, lambda: nn.ConvTranspose2d(x.shape[1], 6, 3, padding=1))(x)]

    def _norm(self, name, x, _):
        return [self.layer(name, lambda: nn.BatchNorm2d(x.shape[1]))(x)]

    def _group_norm(self, name, x, _):
        return [self.layer(name, lambda: nn.GroupNorm(2, x.shape[1]))(x)]

    def _act(self, name, x, _):
        return [F.silu(x)]

    def _add(self, name, x, y):
        return [x + y]

    def _cat(self, name, x, y):
        return [torch.cat([x, y], 1)]

    def _split(self, name, x, _):
        return list(x.split((self.half, self.half), 1))

    def _chunk(self, name, x, _):
        return list(x.chunk(2, 1))

    def _slice(self, name, x, _):
        return [x[:, : x.shape[1] // 2]]

    def _gate(self, name, x, _):
        hidden = self.layer(name, lambda: nn.Conv2d(x.shape[1], x.shape[1], 1))
        return [x * hidden(x.mean((2, 3), keepdim=True)).sigmoid()]

    def _shuffle(self, name, x, _):
        b, c, h, w = x.shape
        return [x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)]

    def _view(self, name, x, _):
        return [x.flatten(2).transpose(1, 2).reshape(x.shape[0], SIDE, SIDE, -1).permute(0, 3, 1, 2)]

    def _shared(self, name, x, _):
        return [self.shared(x)]

    def _scale(self, name, x, _):
        return [x * self.scale]

    def _pool(self, name, x, _):
        return [F.max_pool2d(x, 3, 1, 1)]

    # --- numbers that the code reads ---

    def _decides(self, name, x, _):
        return [x * (2 if x.shape[1] > 6 else 3)]

    def _read_view(self, name, x, _):
        return [x.flatten(2).view(x.shape[0], x.shape[1], SIDE, SIDE)]

    def _read_half(self, name, x, _):
        half = x.shape[1] // 2
        return [torch.cat([x[:, half:], x[:, :half] * 2], 1)]

    def _layers_number(self, name, x, _):
        layer = self.layer(name, lambda: nn.Conv2d(x.shape[1], 6, 1))
        return [layer(x).reshape(x.shape[0], layer.out_channels, SIDE, SIDE)]

    def _divided(self, name, x, _):
        return [self.layer(name, lambda: Halves(x.shape[1]))(x)]

    def _halves(self, name, x, _):
        return [x.unflatten(1, (2, x.shape[1] // 2)).flip(1).flatten(1, 2)]

    # --- modules with several names, norms, attention ---

    def _twice(self, name, x, _):
        return [self.again[0](self.again[1](x))]

    def _layer_norm(self, name, x, _):
        norm = self.layer(name, lambda: nn.LayerNorm(x.shape[1]))
        return [norm(x.movedim(1, -1)).movedim(-1, 1)]

    def _rms_norm(self, name, x, _):
        norm = self.layer(name, lambda: nn.RMSNorm(x.shape[1]))
        return [norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)]

    def _one_group(self, name, x, _):
        return [self.layer(name, lambda: nn.GroupNorm(1, x.shape[1]))(x)]

    def _standardised(self, name, x, _):
        return [self.layer(name, lambda: Standardised(x.shape[1], 6, 3))(x)]

    def _heads(self, name, x, _):
        return [self.layer(name, lambda: Attention(x.shape[1], math=True))(x)]

    def _attention(self, name, x, _):
        return [self.layer(name, lambda: Attention(x.shape[1], math=False))(x)]

    # --- memory, compiled pieces, writes ---

    def _channels_last(self, name, x, _):
        return [x.contiguous(memory_format=torch.channels_last).relu().contiguous()]

    def _scripted(self, name, x, _):
        return [swish(x)]

    def _scripted_sizes(self, name, x, _):
        return [over_channels(x)]

    def _written(self, name, x, _):
        y = x.clone()
        y[:, :, 0] = 0.5 * y[:, :, 1]
        return [y]

    def _wavelets(self, name, x, _):
        y = F.pad(x, (0, 0, 0, 1))
        return [F.conv2d(y, self.filters.repeat(x.shape[1], 1, 1, 1), groups=x.shape[1])]
