"""A pretend accelerator on a machine without one, to find by tests what would fail or wait on a real GPU.

`install()` registers a device of the name `pretend` with torch (its PrivateUse1 key, by the experimental
`torch.utils.backend_registration._setup_privateuseone_for_python_backend` of torch 2.13). A tensor on it holds an
ordinary CPU tensor and computes with that, autograd included, but as on a GPU

- a tensor on `pretend` that meets one on the CPU is an error (0-dimensional ones may, as for CUDA);
- whatever makes the host wait (`.item()`, `.nonzero()`, a copy to the CPU, a Python `if` on a tensor) is an error
  inside `no_waiting()`;
- `new_tensor` and other ways of making a device tensor from Python numbers fail: on a GPU they copy and wait.

    import pretend_device
    pretend_device.install()
    with pretend_device.swapping():
        model.to("pretend:0")
    with pretend_device.no_waiting():
        loss = model(x).mean(); loss.backward(); optimizer.step()

Known limits: no autocast of its own (use fp32), no streams, no pinned memory, no kernels: it says nothing of speed or
rounding. A tensor that is saved is read back as one on the CPU, from where a training copies it to its device.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

DEVICE = "pretend:0"
_COPIES = {"aten::_to_copy", "aten::copy_", "aten::_copy_from"}
_WAITS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::_unique2", "aten::equal"}
_forbidden = False
_library: torch.library.Library | None = None


class PretendTensor(torch.Tensor):
    """A CPU tensor that says it lies on the pretend device."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> PretendTensor:
        tensor = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
        )
        tensor.inner = inner
        return tensor

    def __repr__(self) -> str:
        return f"PretendTensor({self.inner})"

    def __reduce_ex__(self, protocol: int) -> Any:
        return self.inner.__reduce_ex__(protocol)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name, leaves = func._schema.name, pytree.tree_leaves((args, kwargs))
    ours = [leaf for leaf in leaves if isinstance(leaf, PretendTensor)]
    others = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and not isinstance(leaf, PretendTensor)]
    wanted = kwargs.get("device")
    leaves_device = bool(ours) and wanted is not None and torch.device(wanted).type != "pretend"
    to_cpu = leaves_device or (name == "aten::copy_" and bool(ours) and not isinstance(args[0], PretendTensor))
    if _forbidden and (name in _WAITS or to_cpu):
        raise RuntimeError(f"the host waits for the device: {func}")
    if ours and name not in _COPIES and any(other.dim() > 0 for other in others):
        raise RuntimeError(f"{func}: one tensor on {DEVICE}, another on {others[0].device}")
    stays = (bool(ours) if wanted is None else torch.device(wanted).type == "pretend") and not to_cpu
    if wanted is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    plain_args, plain_kwargs = pytree.tree_map_only(PretendTensor, lambda tensor: tensor.inner, (args, kwargs))
    result = func(*plain_args, **plain_kwargs)
    if name == "aten::copy_":
        return args[0]
    known = {id(tensor.inner): tensor for tensor in ours}  # an in-place operation returns its argument

    def wrapped(tensor: torch.Tensor) -> torch.Tensor:
        if not stays:
            return tensor
        return known[id(tensor)] if id(tensor) in known else PretendTensor(tensor)

    return pytree.tree_map_only(torch.Tensor, wrapped, result)


class _Module(_DummyBackendModule):
    """What `torch.get_device_module` returns."""

    def manual_seed(self, seed: int) -> None:
        torch.default_generator.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.default_generator.manual_seed(seed)

    def get_rng_state(self, device: object = None) -> torch.Tensor:
        return torch.default_generator.get_state()

    def set_rng_state(self, state: torch.Tensor, device: object = None) -> None:
        torch.default_generator.set_state(state)

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]


def install() -> torch.device:
    """Register the device, once in a process and before its first backward pass.

    Autograd counts the kinds of devices when it first runs. Parameters move to the device within `swapping()`.
    """
    global _library
    if _library is None:
        _setup_privateuseone_for_python_backend("pretend", backend_module=_Module())
        _library = torch.library.Library("_", "IMPL")
        _library.fallback(lambda op, *args, **kwargs: _run(op, args, kwargs), "PrivateUse1", with_keyset=False)
    return torch.device(DEVICE)


@contextlib.contextmanager
def swapping() -> Iterator[None]:
    """Within it, `module.to(DEVICE)` swaps parameters for others, since one that changes its type cannot stay."""
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        yield
    finally:
        torch.__future__.set_swap_module_params_on_conversion(before)


@contextlib.contextmanager
def no_waiting() -> Iterator[None]:
    """Within it, whatever would make the host wait for a GPU is an error."""
    global _forbidden
    before, _forbidden = _forbidden, True
    try:
        yield
    finally:
        _forbidden = before
