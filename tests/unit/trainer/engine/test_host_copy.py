import torch

from trainyard_trainer.engine.host_copy import HostCopy


def state(value: float) -> dict[str, torch.Tensor]:
    return {
        "matrix": torch.full((3, 5), value),
        "transposed": torch.arange(6.0).reshape(2, 3).t() + value,
        "half": torch.full((7,), value, dtype=torch.bfloat16),
        "step": torch.tensor(value),
        "flags": torch.tensor([True, False, True]),
        "bytes": torch.arange(3, dtype=torch.uint8),
        "empty": torch.empty(0, 4),
        "nothing": torch.empty(0),
    }


def test_copy_is_contiguous_and_independent_of_originals() -> None:
    tensors = state(2.0)
    expected = {name: tensor.clone() for name, tensor in tensors.items()}
    copies, wait = HostCopy().take(tensors)
    wait()
    for tensor in tensors.values():
        tensor.zero_()
    assert list(copies) == list(expected)
    for name, tensor in expected.items():
        assert copies[name].dtype == tensor.dtype
        assert torch.equal(copies[name], tensor), name
        assert copies[name].is_contiguous()


def test_memory_is_reused() -> None:
    copy = HostCopy()
    first, _wait = copy.take(state(1.0))
    places = {name: tensor.data_ptr() for name, tensor in first.items()}
    second, _wait = copy.take(state(2.0))
    assert {name: tensor.data_ptr() for name, tensor in second.items()} == places
    assert torch.equal(second["matrix"], state(2.0)["matrix"])


def test_larger_state_gets_more_memory() -> None:
    copy = HostCopy()
    copy.take({"weights": torch.ones(2)})
    copies, _wait = copy.take({"weights": torch.ones(2), "moments": torch.full((4000,), 3.0)})
    assert torch.equal(copies["moments"], torch.full((4000,), 3.0))


def test_state_of_other_shapes_reuses_memory() -> None:
    copy = HostCopy()
    copy.take({"a": torch.ones(16), "b": torch.ones(16)})
    for other in (torch.full((4, 4), 2.0), torch.full((16,), 2, dtype=torch.int32)):
        copies, _wait = copy.take({"a": other, "b": torch.zeros(16)})
        assert copies["a"].dtype == other.dtype
        assert torch.equal(copies["a"], other)
        assert torch.equal(copies["b"], torch.zeros(16))


def test_only_tied_tensors_share_storage() -> None:
    weights = torch.randn(4, 4)
    tensors = {"embedding": weights, "head": weights.detach(), "part": weights[:2], "turned": weights.t()}
    copies, _wait = HostCopy().take(tensors)
    assert copies["head"].data_ptr() == copies["embedding"].data_ptr()
    storages = {tensor.untyped_storage().data_ptr() for tensor in copies.values()}
    assert len(storages) == 3
    assert torch.equal(copies["part"], weights[:2])
    assert torch.equal(copies["turned"], weights.t())
