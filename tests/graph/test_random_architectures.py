"""Random nets of everything that detectors are made of: whatever is pruned, the oracle holds."""

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import dcodp
from dcodp.testing import assert_equivalent, enliven

SIDE = 6
OPERATIONS = ("conv", "depthwise", "grouped", "transposed", "norm", "group_norm", "act", "add", "cat", "split",
              "chunk", "slice", "gate", "shuffle", "view", "shared", "scale", "pool")  # fmt: skip


class RandomNet(nn.Module):
    """A list of steps; each reads earlier tensors (by number, modulo what fits) and adds new ones."""

    def __init__(self, steps, width):
        super().__init__()
        self.steps, self.wiring, self.layers = steps, [], nn.ModuleDict()
        self.half = width // 2
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.shared = nn.Conv2d(width, width, 1)
        self.scale = nn.Parameter(torch.rand(1, width, 1, 1) + 0.5)
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
        if operation in ("shared", "scale", "split"):
            return x.shape[1] == self.stem.out_channels
        return operation not in ("grouped", "group_norm", "chunk", "slice", "shuffle") or x.shape[1] % 2 == 0

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
        return [nn.functional.silu(x)]

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
        return [nn.functional.max_pool2d(x, 3, 1, 1)]


step = st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 7), st.integers(0, 7))


@settings(max_examples=500, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(step, min_size=1, max_size=8), st.sampled_from([8, 12]), st.integers(0, 2**16))
def test_pruned_equals_zeroed(steps, width, seed):
    torch.manual_seed(seed)
    x = (torch.rand(2, 3, SIDE, SIDE, dtype=torch.float64),)
    model = RandomNet(steps, width).double().eval()
    with torch.no_grad():
        model(*x)
    enliven(model, x, seed)
    graph = dcodp.trace(model, x)
    plan = dcodp.select(graph, {g.name: torch.rand(g.channels) for g in graph.groups}, ratio=0.4)
    assert_equivalent(model, dcodp.prune(model, plan), plan, x)
