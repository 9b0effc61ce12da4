"""What the notebook `03_nets` shows badly: the nets under compile, checkpoint, DDP's rules and
other memory formats."""
import copy

import pytest
import torch
from torch import nn

from mlkit.model.nets import MLP, ConvNet, Heads, ResNet, UNet

NETS = {"mlp": lambda: MLP([1, 9, 7], 3, hidden=[16]),
        "mlp-no-norm": lambda: MLP(63, 3, hidden=[16, 8], norm=None),
        "convnet": lambda: ConvNet(1, 3, widths=[4, 8]),
        "convnet-no-norm": lambda: ConvNet(1, 3, widths=[4, 8], norm=None, act=nn.GELU),
        "resnet": lambda: ResNet(1, 3, widths=[4, 8], depths=[1, 2]),
        "resnet-no-norm": lambda: ResNet(1, 3, widths=[4, 8], depths=[1, 2], norm=None),
        "unet": lambda: UNet(1, 3, widths=[4, 8, 12]),
        "unet-no-norm": lambda: UNet(1, 3, widths=[4, 8], norm=None),
        "heads-int": lambda: Heads(ConvNet(1, 0, widths=[4, 8]), 3, hidden=[8]),
        "heads-dict": lambda: Heads(UNet(1, 0, widths=[4, 8]), {"type": 3, "a b": 2, "keys": 4})}


@pytest.fixture(params=NETS)
def make(request):
    def seeded(seed=0):
        torch.manual_seed(seed)
        return NETS[request.param]()
    return seeded


def batch(): return torch.randn(5, 1, 9, 7, generator=torch.Generator().manual_seed(1))
def tensors(out): return list(out.values()) if isinstance(out, dict) else [out]
def loss(net, x): return sum(o.square().mean() for o in tensors(net(x)))
def same(a, b): return all(x.equal(y) for x, y in zip(tensors(a), tensors(b), strict=True))


def train(net, steps=3):
    optimizer = torch.optim.AdamW(net.parameters(), 1e-2)
    for _ in range(steps):
        optimizer.zero_grad(); loss(net, batch()).backward(); optimizer.step()
    return net


def test_same_seed_same_weights(make):
    assert same(train(make()).state_dict(), train(make()).state_dict())
    assert not same(make(0).state_dict(), make(1).state_dict())


def test_checkpoint_is_plain_data(make, tmp_path):
    trained, fresh = train(make()).eval(), make(1).eval()
    torch.save(trained.state_dict(), tmp_path / "net.pt")
    fresh.load_state_dict(torch.load(tmp_path / "net.pt", weights_only=True))
    assert same(trained(batch()), fresh(batch()))
    assert same(trained(batch()), copy.deepcopy(trained)(batch()))


def test_every_parameter_learns(make):
    "Else DDP needs find_unused_parameters."
    net = make()
    loss(net, batch()).backward()
    assert [name for name, p in net.named_parameters() if p.grad is None] == []


def test_compiles_without_a_graph_break(make):
    net = make().eval()
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    for ours, theirs in zip(tensors(net(batch())), tensors(compiled(batch()))):
        torch.testing.assert_close(ours, theirs)


def test_channels_last_and_bfloat16(make):
    net = make().eval()
    expected = tensors(net(batch()))
    net.to(memory_format=torch.channels_last)
    x = batch().contiguous(memory_format=torch.channels_last)
    for a, b in zip(expected, tensors(net(x))): torch.testing.assert_close(a, b)
    with torch.autocast("cpu", torch.bfloat16):
        for a, b in zip(expected, tensors(net(x))):
            torch.testing.assert_close(a, b.float(), rtol=.1, atol=.1)


def test_eval_does_not_depend_on_the_rest_of_the_batch(make):
    net = train(make()).eval()
    for whole, one in zip(tensors(net(batch())), tensors(net(batch()[:1]))):
        torch.testing.assert_close(whole[:1], one)


def test_head_names_are_kept():
    net = NETS["heads-dict"]()
    assert {k: tuple(v.shape) for k, v in net(batch()).items()} == {"type": (5, 3), "a b": (5, 2),
                                                                    "keys": (5, 4)}


@pytest.mark.parametrize("call",
                         [lambda: ConvNet(1, 2, []), lambda: UNet(1, 2, []),
                          lambda: ResNet(1, 2, [], []),
                                  lambda: ResNet(1, 2, [4, 8], [1, 0]),
                                  lambda: Heads(ConvNet(1, 0), {}),
                                  lambda: Heads(ConvNet(1, 0), {"a.b": 2}),
                                  lambda: Heads(nn.Flatten(), 3),
                                  lambda: Heads(ConvNet(1, 2), 3)(batch()),
                                  lambda: Heads(nn.Flatten(1, 2), 3, num_features=9)(batch())])
def test_bad_arguments_are_one_line(call):
    with pytest.raises(ValueError) as e: call()
    assert "\n" not in str(e.value)
