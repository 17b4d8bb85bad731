"""Group scores from one streamed pass: by definition, together as alone, interrupted as in one go."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import dcodp
from dcodp.calibration import Evidence, gather
from dcodp.errors import InputError
from dcodp.importance import (
    contribution_gram,
    criterion,
    evidence_for,
    gram,
    greedy_removal_order,
    group_scores,
    lasso_scores,
    names,
    nuclear_coupling,
    snip,
    taylor,
    thinet_order_from_gram,
    weights,
)
from dcodp.importance.criterion import position_of_removal

Batches = list[tuple[Tensor]]


def tensors(network: nn.Module, batches: Batches) -> dict[str, Tensor]:
    """The maps of all images, by what they are."""
    images = torch.cat([images for (images,) in batches])
    with torch.no_grad():
        stem = network.norm(network.stem(images)).relu()
        branch = network.branch(stem).relu()
        down = network.down(stem + branch).relu()
        pooled = nn.functional.max_pool2d(down, 3, 1, 1)
        mix = network.mix(torch.cat([down, pooled], 1)).relu()
    return {"stem": stem, "branch": branch, "sum": stem + branch, "down": down, "pooled": pooled, "mix": mix}


def squared_error(network: nn.Module) -> Callable[[tuple[Tensor]], Tensor]:
    return lambda batch: network(*batch).square().mean()


def test_the_groups_are_what_these_tests_take_them_for(graph):
    assert {g.name: g.layers for g in graph.groups} == {"stem": ("stem", "branch"), "down": ("down",), "mix": ("mix",)}


def test_together_as_alone(network, graph, batches):
    def losses(batch):
        value = squared_error(network)(batch)
        return {"total": value, "boxes": value.sqrt()}

    together = dcodp.score(network, graph, names(), batches, loss=losses)
    for name in names():
        alone = dcodp.score(network, graph, name, batches, loss=losses)
        assert alone.keys() == together[name].keys() and alone
        for group, scores in alone.items():
            assert torch.equal(scores, together[name][group]), (name, group)
            assert scores.dtype == torch.float64 and torch.isfinite(scores).all()


def test_an_interrupted_pass_goes_on(network, graph, batches):
    chosen, loss = ["dcodp", "chip", "dcodp_greedy", "thinet", "taylor"], squared_error(network)

    def run(evidence: Evidence, batches: Batches) -> Evidence:
        gather(evidence, batches, lambda inputs: network(*inputs), loss)
        return evidence

    whole = run(evidence_for(network, graph, chosen), batches)
    first = run(evidence_for(network, graph, chosen), batches[:2])
    second = evidence_for(network, graph, chosen)
    second.restore({key: value.clone() for key, value in first.state().items()}, first.batches)
    run(second, batches)
    for name in chosen:
        for group, scores in group_scores(name, whole).items():
            assert torch.equal(scores, group_scores(name, second)[group])


def test_criteria_share_what_they_both_need(network, graph):
    assert len(evidence_for(network, graph, ["dcodp", "chip"]).sums) == 1
    assert len(evidence_for(network, graph, ["thinet", "lasso", "dcodp", "rank", "l1", "random"]).sums) == 5


def test_what_is_kept_does_not_grow_with_the_images(network, graph, batches):
    sizes = []
    for count in (2, 3):
        evidence = evidence_for(network, graph, [n for n in names() if criterion(n).sees != "gradients"])
        gather(evidence, batches[:count], lambda inputs: network(*inputs))
        sizes.append({key: value.shape for key, value in evidence.state().items()})
    assert sizes[0] == sizes[1]


def test_coupling_is_averaged_over_images_and_joined_over_layers(network, graph, batches):
    maps = tensors(network, batches)
    stem, branch = (nuclear_coupling(maps[name]).mean(0) for name in ("stem", "branch"))
    wanted = {"sum": stem + branch, "mean": (stem + branch) / 2, "max": torch.maximum(stem, branch)}
    wanted["consumer"] = (nuclear_coupling(maps["stem"]).mean(0) + nuclear_coupling(maps["sum"]).mean(0)) / 2
    for aggregate, scores in wanted.items():
        found = dcodp.score(network, graph, "dcodp", batches, aggregate=aggregate)
        torch.testing.assert_close(found["stem"], scores)


def test_consumers_read_a_channel_with_all_its_coordinates(network, graph, batches):
    maps = tensors(network, batches)
    found = dcodp.score(network, graph, "dcodp", batches, aggregate="consumer")
    twice = torch.cat([maps["down"], maps["pooled"]], 2)  # the concatenation holds each channel twice
    torch.testing.assert_close(found["down"], nuclear_coupling(twice).mean(0))
    flattened = torch.stack([part.transpose(0, 1).flatten(1) for part in maps["mix"].split(2)[:2]])
    last = maps["mix"][4:].transpose(0, 1).flatten(1)[None]
    rows = [nuclear_coupling(part[..., None]).mean(0) for part in (*flattened.split(1), last)]
    torch.testing.assert_close(found["mix"], sum(rows) / 3)


def test_weights_of_producers_or_of_consumers(network, graph):
    stem, branch = (weights.l1(layer.weight.flatten(1)) for layer in (network.stem, network.branch))
    torch.testing.assert_close(dcodp.score(network, graph, "l1")["stem"], stem + branch)
    read = [weights.l1(layer.weight.transpose(0, 1).flatten(1)) for layer in (network.branch, network.down)]
    found = dcodp.score(network, graph, "l1", aggregate="consumer")
    torch.testing.assert_close(found["stem"], sum(read) / 2)
    mix = network.mix.weight.abs().double().sum((0, 2, 3))
    torch.testing.assert_close(found["down"], mix[:8] + mix[8:])


def test_random_scores_follow_the_seed(network, graph):
    first, again, other = (dcodp.score(network, graph, "random", seed=seed) for seed in (0, 0, 1))
    assert all(torch.equal(first[g], again[g]) and not torch.equal(first[g], other[g]) for g in first)


def test_random_scores_are_as_uniform_in_coupled_groups(network, graph):
    drawn = torch.stack([dcodp.score(network, graph, "random", seed=seed)["stem"] for seed in range(300)]).flatten()
    assert abs(float(drawn.mean()) - 1 / 2) < 0.03 and abs(float(drawn.var()) - 1 / 12) < 0.01  # two layers, one draw


def test_a_batch_is_whatever_the_network_takes(network, graph, batches):
    wanted = dcodp.score(network, graph, "dcodp", batches)
    for spelled in ([images for (images,) in batches], [{"images": images} for (images,) in batches]):
        found = dcodp.score(network, graph, "dcodp", spelled)
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    with pytest.raises(InputError, match="put a single one into a list"):
        dcodp.score(network, graph, "dcodp", batches[0][0])


def test_slimming_leaves_groups_without_batch_norm(network, graph):
    found = dcodp.score(network, graph, "slimming")
    assert found.keys() == {"stem"} and torch.equal(found["stem"], network.norm.weight.detach().double().abs())


def test_taylor_by_hand(network, graph, batches):
    found = dcodp.score(network, graph, "taylor", batches, loss=squared_error(network))
    wanted = []
    for batch in batches:
        (grad,) = torch.autograd.grad(squared_error(network)(batch), [network.down.weight])
        wanted.append(taylor(network.down.weight.flatten(1), grad.flatten(1)))
    torch.testing.assert_close(found["down"], torch.stack(wanted).mean(0))


def test_snip_by_hand(network, graph, batches):
    found = dcodp.score(network, graph, "snip", batches, loss=squared_error(network))
    grads = [torch.autograd.grad(squared_error(network)(batch), [network.down.weight])[0] for batch in batches]
    wanted = torch.stack([snip(network.down.weight.flatten(1), grad.flatten(1)) for grad in grads]).mean(0)
    torch.testing.assert_close(found["down"], wanted)


def test_grasp_is_the_slope_of_the_gradient_flow(network, graph, batches):
    """Scaling a filter by 1 + ε changes half the squared norm of the gradients by ε · w·Hg."""
    network.double()
    batch = (batches[0][0].double(),)
    loss = squared_error(network)
    found = dcodp.score(network, graph, "grasp", [batch], loss=loss)["down"]
    weights = [network.get_parameter(name) for name in evidence_for(network, graph, ["grasp"]).wanted("differentiated")]
    filters = network.down.weight.detach().clone()

    def flow(scale: Tensor) -> float:
        network.down.weight.data = filters * scale[:, None, None, None]
        return sum(float(g.square().sum()) for g in torch.autograd.grad(loss(batch), weights)) / 2

    steps = 1e-4 * torch.eye(len(found), dtype=torch.float64)
    slopes = [(flow(1 + step) - flow(1 - step)) / 2e-4 for step in steps]
    torch.testing.assert_close(found, torch.tensor(slopes, dtype=torch.float64), rtol=1e-5, atol=1e-12)


def test_localization_sees_the_loss_of_boxes_alone(network, graph, batches):
    squares = squared_error(network)

    def losses(batch):
        return {"total": squares(batch) + network(*batch).abs().sum(), "boxes": squares(batch)}

    found = dcodp.score(network, graph, ["taylor", "localization"], batches, loss=losses)
    alone = dcodp.score(network, graph, "taylor", batches, loss=squares)
    assert all(torch.equal(found["localization"][name], alone[name]) for name in alone)
    assert not torch.equal(found["taylor"]["down"], alone["down"])
    with pytest.raises(InputError, match="part about boxes"):
        dcodp.score(network, graph, "localization", batches, loss=squares)


def test_taylor_leaves_the_network_as_it_was(network, graph, batches):
    network.train()
    network.mix.eval()
    network.stem.weight.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state = torch.get_rng_state()
    seen = []

    def loss(batch):
        seen.append((network.training, network.norm.training))
        return network(*batch).square().mean() * torch.rand(())

    found = dcodp.score(network, graph, "taylor", batches, loss=loss)
    assert seen == [(True, False)] * 3 and found["stem"].min() > 0
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert network.norm.training and not network.mix.training and not network.stem.weight.requires_grad
    assert all(parameter.grad is None for parameter in network.parameters())
    torch.rand(())  # what was drawn before does not matter
    again = dcodp.score(network, graph, "taylor", batches, loss=loss)
    assert torch.equal(again["stem"], found["stem"])


def contributions(inputs: Tensor, layer: nn.Conv2d) -> Tensor:
    """X [positions · filters, channels] at all positions, from the definition: the layer with one channel at a time."""
    columns = []
    for channel in range(inputs.size(1)):
        alone = torch.zeros_like(inputs)
        alone[:, channel] = inputs[:, channel]
        without_bias = nn.functional.conv2d(alone, layer.weight, None, layer.stride, layer.padding)
        columns.append(without_bias.detach().double().flatten())
    return torch.stack(columns, 1)


def test_thinet_and_lasso_by_definition(network, graph, batches):
    maps = tensors(network, batches)
    found = dcodp.score(network, graph, ["thinet", "lasso"], batches, locations=64)  # all positions there are
    total = torch.zeros(6, 6, dtype=torch.float64)
    for inputs, layer in ((maps["stem"], network.branch), (maps["sum"], network.down)):
        parts = contributions(inputs, layer)
        total += contribution_gram(parts) / parts.sum(1).square().sum()
    torch.testing.assert_close(found["thinet"]["stem"], position_of_removal(thinet_order_from_gram(total)))
    torch.testing.assert_close(found["lasso"]["stem"], lasso_scores(total, total.sum(1)), rtol=1e-4, atol=1e-9)
    both = contributions(torch.cat([maps["down"], maps["pooled"]], 1), network.mix)
    order = thinet_order_from_gram(contribution_gram(both[:, :8] + both[:, 8:]))
    assert found["thinet"]["down"][order].tolist() == list(range(8))


def test_sampled_positions_follow_the_seed(network, graph, batches):
    first, again, other = (dcodp.score(network, graph, "lasso", batches, seed=s, locations=2) for s in (0, 0, 1))
    assert all(torch.equal(first[group], again[group]) for group in first)
    assert not torch.equal(first["stem"], other["stem"])


def test_groups_without_a_consumer_have_no_score_by_thinet():
    network = nn.Sequential(nn.Conv3d(1, 4, 3), nn.ReLU(), nn.Conv3d(4, 2, 1))  # none in two dimensions, that is
    inputs = (torch.rand(1, 1, 5, 5, 5),)
    graph = dcodp.trace(network, inputs)
    found = dcodp.score(network, graph, ["thinet", "dcodp"], [inputs])
    assert found["thinet"] == {} and found["dcodp"].keys() == {"0"}
    assert dcodp.select(graph, found["thinet"], 0.5).channel_ratio == 0


def test_greedy_joins_the_maps_of_all_layers(network, graph, batches):
    maps = tensors(network, batches)
    together = gram(torch.cat([maps["stem"], maps["branch"]], 2)).sum(0)
    found = dcodp.score(network, graph, "dcodp_greedy", batches)
    assert found["stem"][greedy_removal_order(together)].tolist() == list(range(6))


FAMILIES = ([2, 5, 11], [3, 8, 17])  # in each, three copies of one channel


def with_copies() -> nn.Sequential:
    """Two families of copies in the first layer, the first weaker: each copy is expendable while another stays."""
    network = nn.Sequential(nn.Conv2d(3, 20, 3), nn.ReLU(), nn.Conv2d(20, 4, 3)).double()
    with torch.no_grad():
        for copies, strength in zip(FAMILIES, (0.8, 1.0), strict=True):
            network[0].weight[copies] = strength * network[0].weight[copies[0]].clone()
            network[0].bias[copies] = 0.05
    return network


def best_outputs(network: nn.Sequential, kept: list[int], inputs: torch.Tensor) -> torch.Tensor:
    """The outputs when the second layer's weights on the kept channels are fitted to the dense outputs."""
    maps, wanted = network[:2](inputs), network(inputs)
    columns = torch.nn.functional.unfold(maps[:, kept], 3).transpose(1, 2).flatten(0, 1)  # [positions, kept · 9]
    columns = torch.cat([columns, torch.ones(len(columns), 1)], 1)
    target = wanted.flatten(2).transpose(1, 2).flatten(0, 1)
    fitted = columns @ torch.linalg.lstsq(columns, target, driver="gelsd").solution
    return fitted.unflatten(0, (len(inputs), -1)).transpose(1, 2).reshape(wanted.shape)


def test_greedy_removes_copies_only_where_one_shot_removes_a_channel_with_all_its_copies():
    torch.manual_seed(1)
    network, inputs = with_copies(), torch.randn(4, 3, 12, 12, dtype=torch.float64)
    graph = dcodp.trace(network, inputs)
    scores = dcodp.score(network, graph, ["dcodp", "dcodp_greedy"], [(inputs,)])
    plans = {name: dcodp.select(graph, found, ratio=4 / 20) for name, found in scores.items()}
    removed = {name: set(range(20)) - set(plan.groups["0"]) for name, plan in plans.items()}
    assert removed["dcodp"] >= set(FAMILIES[0]), "one-shot: nothing of the weaker family is left"
    assert [len(removed["dcodp_greedy"] & set(family)) for family in FAMILIES] == [2, 2], "greedy: one of each stays"

    kept = plans["dcodp_greedy"].groups["0"]
    small = dcodp.prune(network, plans["dcodp_greedy"])
    with torch.no_grad():  # compensation of the sum: the survivor takes over the weights of its copies
        for family in FAMILIES:
            (survivor,) = set(family) & set(kept)
            small[2].weight[:, kept.index(survivor)] = network[2].weight[:, family].sum(1)
        torch.testing.assert_close(small(inputs), network(inputs), rtol=1e-12, atol=1e-12)
        lost = (best_outputs(network, plans["dcodp"].groups["0"], inputs) - network(inputs)).abs().max()
        fitted = (best_outputs(network, kept, inputs) - network(inputs)).abs().max()
    assert fitted < 1e-9 < 1e-3 < lost, "no weights of the next layer make up for what one-shot removed"


def test_linear_layers_have_no_rank(network, graph, batches):
    found = dcodp.score(network, graph, ["hrank", "dcodp"], batches)
    linear = {
        g.name for g in graph.groups if all(isinstance(network.get_submodule(name), nn.Linear) for name in g.layers)
    }
    convolved = {g.name for g in graph.groups} - linear
    assert set(found["hrank"]) == convolved and set(found["dcodp"]) == convolved | linear


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dcodp", {}, "importance=dcodp looks at maps; give calibration batches"),
        ("thinet", {}, "importance=thinet looks at consumer inputs"),
        ("taylor", {"batches": [()]}, "gradients are asked for; give a loss"),
        ("dcodp_greedy", {"aggregate": "max"}, "aggregate=max means nothing to dcodp_greedy; use one of sum, consumer"),
        ("thinet", {"aggregate": "mean"}, "aggregate=mean means nothing to thinet; use one of sum"),
        ("slimming", {"aggregate": "consumer"}, "aggregate=consumer means nothing to slimming"),
        ("l1", {"aggregate": "median"}, "aggregate=median is not known; use one of sum, mean, max, consumer"),
        ("l0", {}, "importance=l0 is not known"),
    ],
)
def test_refusals(network, graph, name, options, message):
    with pytest.raises(InputError, match=message):
        dcodp.score(network, graph, name, **options)


def test_a_loss_that_is_not_finite(network, graph, batches):
    with pytest.raises(InputError, match="the loss on a calibration batch is not finite"):
        dcodp.score(network, graph, "taylor", batches, loss=lambda batch: network(*batch).sum() * torch.inf)
