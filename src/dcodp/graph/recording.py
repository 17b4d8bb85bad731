"""What is recorded of a running model: the labels of every tensor, the sizes in its code, the order of its layers."""

from __future__ import annotations

import weakref
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from dcodp.graph.cost import Dimension, Spent
from dcodp.graph.expressions import DECIDES, FromDimension, SizeRule
from dcodp.graph.labels import Components, Labels, forget, labels_of, put_labels, tensors_in
from dcodp.graph.layers import OperationGraph
from dcodp.graph.modules import Following, is_library_module, is_opaque, suggest
from dcodp.graph.outliving import release
from dcodp.graph.sizes import TracedInt, Uses, origin_of, plain

LEAST_SHARE = 1e-3  # of the parameters, for which a second look is worth its time
OUTPUT = "an output of the model"  # why channels stay; how such reasons begin


@dataclass(frozen=True)
class Choice:
    """A view in `module` that could shrink in several ways: it was given these channels, and these stand for them."""

    module: str
    given: np.ndarray
    labels: np.ndarray


class Recorder:
    """What a trace has learned so far, and what label rules ask for: labels, size rules, the operation graph."""

    def __init__(self, network: nn.Module, whole_heads: frozenset[str] = frozenset()):
        self.whole_heads = whole_heads  # modules in which views keep the size of heads and lose whole ones
        self.choices: list[Choice] = []
        self.labels = Labels()
        self.rules: list[SizeRule] = []
        self.followings: list[Following] = []  # attributes that follow a tensor dimension
        self.operations = OperationGraph()
        self.hint: list[Any] | None = None  # the sizes of the view under way, as the model wrote them
        self.strides_before: tuple[int, ...] | None = None  # of the tensor that an operation rewrites in place
        self.groups: Any = None  # the number of groups of the call under way, as the model wrote it
        self.sizes_seen = False  # whether the function under way has its sizes checked by calls/
        self.modules: list[str] = [""]  # the modules whose forward is running, innermost last
        self.uses = Uses(modules=self.modules)  # what the model's code did with sizes and attributes
        self.named_modules = dict(network.named_modules())
        self.owner: dict[int, str] = {}  # id of a parameter or buffer → its first state-dict name
        self.buffers = {name for name, _ in network.named_buffers()}
        # Parameters applied as a layer's weight: with the labels of its output and of its input channels.
        self.applied: list[tuple[str, np.ndarray | None, np.ndarray | None]] = []
        self.used: set[str] = set()  # names of those that the forward pass read
        self.counting = True  # whether contractions count into the cost
        self.spent: list[Spent] = []
        self.notes: list[str] = []
        self.seen: list[weakref.ref[Tensor]] = []  # tensors that carry labels
        self.written: set[int] = set()  # storages that an in-place operation may have filled with non-zeros
        self._label_parameters(network)

    def _label_parameters(self, network: nn.Module) -> None:
        """Floating-point parameters and buffers get fresh labels; integer buffers are data and get none."""
        named = [*network.named_parameters(), *network.named_buffers()]
        for name, tensor in named:
            if tensor.is_floating_point():
                self.owner[id(tensor)] = name
                put_labels(tensor, [self.labels.fresh(size) for size in tensor.shape])
                tensor._dcodp_zero = True  # type: ignore[attr-defined]
                module = self.named_modules[name.rpartition(".")[0]]
                tensor._dcodp_module = module  # type: ignore[attr-defined]
                if is_opaque(module):
                    self.fix_all(tensor, f"{type(module).__name__} keeps the sizes of its parameters")

    def finish(self) -> None:
        """Numbers that decided something become rules, and whatever outlives the trace forgets what it learned."""
        self.uses.over = True
        release(self.uses.made, self.named_modules.values())
        for origin, size, where in self.uses.fixed:
            if isinstance(origin, FromDimension):
                self.labels.fix(origin.labels, f"{DECIDES} ({where})")
            else:
                self.rules.append(SizeRule(origin, None, size, where, value=True))
        for reference in self.seen:
            tensor = reference()
            if tensor is not None and id(tensor) not in self.owner:
                forget(tensor)

    # --- what rules ask for ---

    @property
    def where(self) -> str:
        return self.modules[-1] or "the model"

    def fix(self, labels: np.ndarray | None, reason: str) -> None:
        self.labels.fix(labels, f"{reason} ({self.where})")

    def fix_dims(self, tensor: Tensor, dims: Any, reason: str) -> None:
        axes = labels_of(tensor)
        for dim in dims:
            self.fix(axes[dim], reason)

    def fix_all(self, tree: Any, reason: str) -> None:
        for tensor in tensors_in(tree):
            self.fix_dims(tensor, range(tensor.dim()), reason)

    def tie(
        self, one: np.ndarray, other: np.ndarray, reason: str = "joined with values that no parameter owns"
    ) -> None:
        """Coordinates that stand or fall together; `reason` is told where one side is fixed."""
        self.labels.tie(one, other, f"{reason} ({self.where})")

    def meet(self, one: np.ndarray | None, other: np.ndarray | None) -> None:
        """Two dimensions that run in step."""
        if one is None or other is None:
            self.fix(one if other is None else other, "meets values that no parameter owns")
        else:
            self.tie(one, other)

    def meet_all(self, axes: list[np.ndarray | None]) -> np.ndarray | None:
        """Dimensions of several tensors that run in step; returns their common labels."""
        first = next((a for a in axes if a is not None), None)
        for other in axes:
            self.meet(first, other)
        return first

    def contract(self, left: Tensor, one: np.ndarray | None, right: Tensor, other: np.ndarray | None) -> None:
        """Dimensions summed over: exact if a removed channel is 0 on at least one side."""
        if not (getattr(left, "_dcodp_zero", False) or getattr(right, "_dcodp_zero", False)):
            self.fix(one, "summed over without a weight")
            self.fix(other, "summed over without a weight")
        self.meet(one, other)

    def spend(self, *dims: Dimension) -> None:
        """Two floating-point operations for each combination of coordinates of `dims`."""
        if self.counting:
            self.spent.append(Spent(self.where, 2, dims))

    def choose_dim(self, dims: list[int]) -> int:
        """Of the dimensions that share one kind of channel, the one that may shrink: not a literal, else the last.

        Where attention has been found to need its head size, whole heads go instead: the first that is no literal.
        """
        if self.hint is not None:
            named = [d for d in dims if d < len(self.hint) and type(self.hint[d]) is TracedInt]
            if self.modules[-1] in self.whole_heads and named:
                return named[0]
            free = [d for d in dims if d < len(self.hint) and plain(self.hint[d]) == -1] or named
            if free:
                return free[-1]
        return dims[-1]

    def note_choice(self, dims: list[int], given: np.ndarray, labels: np.ndarray) -> None:
        """Of several dimensions that a view makes of the channels `given` one was chosen to shrink, with `labels`."""
        if len(dims) > 1 and self.hint is not None:
            self.choices.append(Choice(self.modules[-1], given, labels))

    def stuck(self, components: Components) -> frozenset[str]:
        """The modules whose views can shrink in no way that was chosen, though in another they might: not where the
        model gives out all the channels that are viewed, nor where hardly a parameter hangs on them, nor where more
        hangs on the module's views that do shrink and would lose their way.
        """
        kept = [labels for labels, reason in self.labels.fixes if reason.startswith(OUTPUT)]
        given_out = np.concatenate([np.zeros(0, np.int64), *kept])
        shrinks = [bool(components.removable(choice.labels).any()) for choice in self.choices]
        held, free = defaultdict(list), defaultdict(list)
        for choice, as_chosen in zip(self.choices, shrinks, strict=True):
            if as_chosen:
                free[choice.module].append(choice.given)
            elif not np.isin(choice.given, given_out).all():
                held[choice.module].append(choice.given)
        share = self._shares(components) if held else np.zeros(0)

        def carried(given: list[np.ndarray]) -> float:
            return share[np.unique(components.of[np.concatenate(given)])].sum() if given else 0.0

        return frozenset(m for m in held if carried(held[m]) > max(LEAST_SHARE, carried(free[m])))

    def _shares(self, components: Components) -> np.ndarray:
        """[components] the share of all parameters that a component carries."""
        carried, total = np.zeros(components.of.max() + 1), 0
        for parameter in self.named_modules[""].parameters():
            total += parameter.numel()
            for labels in labels_of(parameter):
                if labels is not None:
                    np.add.at(carried, components.of[labels], parameter.numel() / len(labels))
        return carried / max(total, 1)

    def require(self, size: Any, labels: np.ndarray | None, dense_size: int) -> None:
        """The model's code says that a dimension has `size`."""
        if labels is not None or type(size) is TracedInt:
            self.rules.append(SizeRule(origin_of(size), labels, dense_size, self.where))

    def note_used(self, source: Tensor, alias: Tensor) -> None:
        """`alias` is another name of a parameter or buffer, if `source` is one."""
        name = self.owner.get(id(source))
        if name is not None:
            self.used.add(name)
            alias._dcodp_weight = name  # type: ignore[attr-defined]

    def follow_groups(self, labels: np.ndarray) -> bool:
        """labels [groups]: one per group of the convolution or group norm under way. False if its number stays."""
        if type(self.groups) is TracedInt:
            self.require(self.groups, labels, len(labels))
            return True
        running = self.named_modules.get(self.modules[-1])
        attribute = next((a for a in ("groups", "num_groups") if hasattr(running, a)), None)
        if attribute is None or not is_library_module(running):  # type: ignore[arg-type]
            return False  # a number that is written out in the model's code
        self.followings.append(Following(self.modules[-1], attribute, labels))
        return True

    def suggest_pieces(self, pieces: list[np.ndarray | None]) -> None:
        """An attribute of the running module that equals the size of a piece probably means it (`self.c`)."""
        self.followings += suggest(self.modules[-1], self.named_modules, pieces)

    def suggest_ends(self, name: str, args: Any, out: Any) -> None:
        """`in_channels` and `out_channels` of a container mean what enters and leaves it; of a norm, what it norms."""
        module = self.named_modules[name]
        if isinstance(module, nn.modules.batchnorm._NormBase) and not module.affine and not module.track_running_stats:
            labels = labels_of(args[0])[1]
            self.followings += [] if labels is None else [Following(name, "num_features", labels)]
        for ends, key in ((args, "in_channels"), (out, "out_channels")):
            if key in vars(module):
                axes = [labels_of(t)[1] for t in tensors_in(ends) if t.dim() == 4]
                self.followings += suggest(name, self.named_modules, axes, only=key)
