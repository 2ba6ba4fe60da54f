"""Tensors that say they are on a CUDA card or an Apple GPU, compute on the CPU, and refuse what such a device refuses.

A `Pretended` tensor wraps an ordinary one. Every operation on it comes through `compute`, which checks what PyTorch would check,
counts how often the processor waits for the device, and follows how much memory is in use. With `without_numbers` the wrapped
tensors have shapes and types only (PyTorch's "meta" device), so that a step of a large model takes a second and no memory.
"""

import sys
import threading
import types
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.fx.experimental._config
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map

aten = torch.ops.aten
REPOSITORY = Path(__file__).resolve().parents[2]
MIXES_DEVICES = {"copy_", "_to_copy", "index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
"""operations that take tensors of the CPU beside those of the device: copies, and reading or writing at positions"""
SIZE_FROM_NUMBERS = {"nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "bincount", "equal"}
"""operations whose result has a size, or is a value, that only the device knows, so that the processor waits for it"""


class Device:
    """The one device of this process, and what is counted on it."""

    kind = ""
    numbers = True
    """whether tensors hold numbers, or only shapes and types"""
    waits: ClassVar[Counter[str]] = Counter()
    """where the processor waited for the device: "file:line of the project: why" -> how often"""
    used = peak = 0
    """bytes of all tensors that are alive, now and at the highest"""

    @classmethod
    def wait(cls, why: str) -> None:
        """The processor waits for the device here."""
        frame = sys._getframe(1)
        while frame is not None and not _is_ours(frame.f_code.co_filename):
            frame = frame.f_back
        where = "?" if frame is None else f"{Path(frame.f_code.co_filename).relative_to(REPOSITORY)}:{frame.f_lineno}"
        cls.waits[f"{where}: {why}"] += 1

    @classmethod
    def follow(cls, storage: torch.UntypedStorage) -> None:
        """Count the bytes of a storage until it is freed; a card hands out memory in blocks of 512 bytes."""
        if storage._cdata in _followed:
            return
        size = -(-storage.nbytes() // 512) * 512
        _followed.add(storage._cdata)
        cls.used += size
        cls.peak = max(cls.peak, cls.used)

        def freed(key: int = storage._cdata) -> None:
            _followed.discard(key)
            cls.used -= size

        weakref.finalize(storage, freed)


_followed: set[int] = set()


def _is_ours(name: str) -> bool:
    return name.startswith(str(REPOSITORY)) and "/tests/" not in name and "/.venv/" not in name


class Pretended(torch.Tensor):
    """A tensor on the device. `held`: the one that does the work."""

    held: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> "Pretended":
        tensor = torch.Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype, layout=held.layout,
            device=torch.device(Device.kind, 0), requires_grad=False,
        )  # fmt: skip
        tensor.held = held
        return tensor

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return compute(operation, args, kwargs or {})

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"Pretended({self.held!r})"

    def __deepcopy__(self, memo: dict) -> "Pretended":
        return Pretended(self.held.clone()).requires_grad_(self.requires_grad)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.held.detach().__reduce_ex__(protocol)  # in a file, for a reader who maps it to the CPU

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, *, force: bool = False) -> Any:
        raise TypeError(f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu() first")

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        return self.numpy()


def on_device(value: Any) -> Any:
    """The value; a tensor of the CPU as one of the device."""
    if not isinstance(value, torch.Tensor) or isinstance(value, Pretended):
        return value
    if Device.kind == "mps" and value.dtype in (torch.float64, torch.complex128):
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64.")
    value = value if Device.numbers else value.to("meta")
    Device.follow(value.untyped_storage())
    return Pretended(value)


def compute(operation: Any, args: tuple, kwargs: dict) -> Any:
    """Carry out one operation, in which a tensor of the device or the name of the device occurs."""
    name = operation._schema.name.split("::")[1]
    if name == "device":
        return torch.device(Device.kind, 0)
    flat = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, torch.Tensor)]
    ours = [value for value in flat if isinstance(value, Pretended)]
    target = kwargs.get("device")
    stays = bool(ours) if target is None else torch.device(target).type == Device.kind
    refuse_mixed_devices(operation, name, flat, ours)
    refuse_what_mps_lacks(name, args, flat)
    note_waits(operation, name, args, kwargs, ours, stays)
    own = None
    if kwargs.get("generator") is not None or torch.Tag.nondeterministic_seeded in operation.tags:
        own, kwargs = random_numbers(kwargs, stays or bool(ours))
    if stays and target is not None:
        kwargs = kwargs | {"device": "cpu" if Device.numbers else "meta"}
    if name == "_to_copy":
        kwargs = {key: value for key, value in kwargs.items() if key != "non_blocking"}
    if name == "record_stream":
        return None
    args_held, kwargs_held = tree_map(lambda value: value.held if isinstance(value, Pretended) else value, (args, kwargs))
    with own or _nothing():
        result = held_result(operation, name, args_held, kwargs_held)
    if name == "copy_":
        return args[0]
    if not stays or not any(isinstance(value, torch.Tensor) for value in tree_flatten(result)[0]):
        return result
    wrapped = tree_map(on_device, result)
    if not ours:
        return wrapped
    return return_and_correct_aliasing(operation, args, kwargs, wrapped)


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def refuse_mixed_devices(operation: Any, name: str, flat: list[torch.Tensor], ours: list[torch.Tensor]) -> None:
    """Numbers of the CPU (tensors without dimensions) may take part in everything, other tensors only in copies."""
    if ours and name not in MIXES_DEVICES and any(not isinstance(value, Pretended) and value.dim() for value in flat):
        raise RuntimeError(f"Expected all tensors to be on the same device, but found {Device.kind}:0 and cpu! ({operation})")


def refuse_what_mps_lacks(name: str, args: tuple, flat: list[torch.Tensor]) -> None:
    """Operations that raise on Apple's GPUs, as far as they are known."""
    if Device.kind != "mps" or name != "convolution":
        return
    transposed, half = args[6], flat[0].dtype in (torch.bfloat16, torch.float16)
    if transposed and half and flat[0].dim() == 5:  # pytorch#188732
        raise RuntimeError("ConvTranspose 3D with BF16 or FP16 types is not supported on MPS")


def note_waits(operation: Any, name: str, args: tuple, kwargs: dict, ours: list[torch.Tensor], stays: bool) -> None:
    """Count this operation if the processor waits in it. Refuse copies that nobody waits for although somebody must."""
    if name in ("_to_copy", "copy_"):
        source, arrives = (args[1], isinstance(args[0], Pretended)) if name == "copy_" else (args[0], stays)
        leaves = isinstance(source, Pretended)
        if leaves == arrives or (source.dim() == 0 and not leaves):
            return
        hurries = kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2])
        if hurries and (leaves or Device.kind == "mps"):  # pytorch#189690
            raise RuntimeError("a copy that is not waited for: its numbers may be read, or its source freed, before it is done")
        if not (hurries and getattr(source, "is_pinned_here", False)):
            Device.wait("a copy " + ("to the processor" if leaves else "of ordinary memory to the device"))
    elif ours and name == "_local_scalar_dense":
        Device.wait("a value is read")
    elif ours and name in SIZE_FROM_NUMBERS:
        Device.wait(f"{name} gives a result whose size the device knows")
    elif ours and name.startswith(("index", "_unsafe_index", "_index")) and name != "index_select":
        if any(isinstance(value, torch.Tensor) and value.dtype == torch.bool for value in tree_flatten(args[1])[0]):
            Device.wait("a mask picks values whose number the device knows")
    elif ours and name == "multinomial":
        Device.wait("multinomial checks its probabilities")


@contextmanager
def _random_numbers_of(generator: torch.Generator) -> Iterator[None]:
    """Inside, the CPU draws what this generator of the device would."""
    before = torch.get_rng_state()
    torch.set_rng_state(generator.get_state())
    yield
    generator.set_state(torch.get_rng_state())
    torch.set_rng_state(before)


def random_numbers(kwargs: dict, here: bool) -> tuple[Any, dict]:
    """The context in which an operation draws its random numbers, and its arguments without their generator."""
    generator = kwargs.get("generator")
    if generator is not None and (generator.device.type == Device.kind) != here:
        raise RuntimeError(f"Expected a '{Device.kind if here else 'cpu'}' generator but found '{generator.device.type}'")
    if not here:
        return None, kwargs
    if "generator" in kwargs:
        kwargs = kwargs | {"generator": None}
    return _random_numbers_of(generator or default_generator()), kwargs


def default_generator() -> torch.Generator:
    """The generator that random operations of the device use where they are given none."""
    return torch.cuda.default_generators[0] if Device.kind == "cuda" else torch.mps._get_default_mps_generator()


def held_result(operation: Any, name: str, args: tuple, kwargs: dict) -> Any:
    """The result of an operation on the tensors that do the work."""
    if not Device.numbers:
        return shape_of(operation, name, args, kwargs)
    try:
        return operation(*args, **kwargs)
    except NotImplementedError as error:  # a device has more operations in bfloat16 than the CPU
        if "BFloat16" not in str(error):
            raise
        exact = tree_map(lambda value: value.float() if _is_bfloat16(value) else value, (args, kwargs))
        return tree_map(
            lambda value: value.bfloat16() if isinstance(value, torch.Tensor) else value, operation(*exact[0], **exact[1])
        )


def _is_bfloat16(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype == torch.bfloat16


def shape_of(operation: Any, name: str, args: tuple, kwargs: dict) -> Any:
    """The result of an operation on tensors without numbers; what depends on numbers is made up: ones, and yes."""
    if name == "_local_scalar_dense":
        return True if args[0].dtype == torch.bool else 1 if not args[0].is_floating_point() else 1.0
    if name == "_to_copy" and args[0].is_meta and str(kwargs.get("device", "meta")) == "cpu":
        return operation(torch.ones_like(args[0], device="cpu"), **kwargs)
    if name == "copy_" and args[1].is_meta and not args[0].is_meta:
        return args[0].fill_(1)
    if name == "bincount":
        return args[0].new_zeros(kwargs.get("minlength", args[-1]), dtype=torch.int64)
    if name == "_unique2":
        return args[0].new_zeros(1), args[0].new_zeros(1, dtype=torch.int64), args[0].new_zeros(1, dtype=torch.int64)
    return operation(*args, **kwargs)


def attention(
    query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0, is_causal: bool = False, **scale: Any
):
    """The fused attention of a device: like those of real ones, it keeps no matrix of queries times keys."""
    if not isinstance(query, Pretended):
        return _attention(query, key, value, attn_mask, dropout_p, is_causal, **scale)
    if torch.is_autocast_enabled(Device.kind):
        query, key, value = (tensor.to(torch.get_autocast_dtype(Device.kind)) for tensor in (query, key, value))
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill(~attn_mask, float("-inf"))
    mask = None if attn_mask is None else attn_mask.to(query.dtype)
    fused = aten._scaled_dot_product_flash_attention_for_cpu
    return fused(query, key, value, dropout_p, is_causal, attn_mask=mask, **scale)[0]


_attention = F.scaled_dot_product_attention


class SeesTheDevice(TorchDispatchMode):
    """Sends to `compute` what is made on the device out of nothing, and what is copied to it."""


def _send_to_compute(mode: SeesTheDevice, operation: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
    kwargs = kwargs or {}
    target = kwargs.get("device")
    if target is not None and torch.device(target).type == Device.kind:
        return compute(operation, args, kwargs)
    if any(isinstance(value, Pretended) for value in tree_flatten((args, kwargs))[0]):
        return compute(operation, args, kwargs)
    return operation(*args, **kwargs)


SeesTheDevice.__torch_dispatch__ = _send_to_compute  # in the class, PyTorch would wrap it, and import its compiler: seconds


def pin(tensor: torch.Tensor, *_: Any) -> torch.Tensor:
    """Tensor.pin_memory: a copy from which the device reads while the processor goes on."""
    pinned = tensor.clone()
    pinned.is_pinned_here = True  # type: ignore[attr-defined]
    return pinned


def install(kind: str) -> None:
    """Let torch say that the device is there, for the rest of this process."""
    Device.kind = kind
    generator = torch.Generator(f"{kind}:0")
    if kind == "cuda":
        torch.cuda.is_available = lambda: True
        for module in (torch.cuda, torch.cuda.random):
            module.device_count, module.current_device = lambda: 1, lambda: 0
        torch.cuda.set_device = lambda device: None
        torch.cuda._exchange_device = torch.cuda._maybe_exchange_device = lambda device: 0
        torch.cuda._lazy_init = lambda: None
        torch.cuda._initialized = True
        torch.cuda.default_generators = (generator,)
        torch.cuda.get_device_capability = lambda device=None: (9, 0)
        torch.cuda.get_device_name = lambda device=None: "a card that is not there"
        torch.cuda.get_device_properties = lambda device=None: types.SimpleNamespace(total_memory=16 * 2**30)
        torch.cuda.is_bf16_supported = lambda including_emulation=True: True
        torch.cuda.synchronize = lambda device=None: Device.wait("synchronize")
        torch.cuda.max_memory_allocated = lambda device=None: Device.peak
        torch.cuda.reset_peak_memory_stats = lambda device=None: setattr(Device, "peak", Device.used)
        torch.cuda.amp.common.amp_definitely_not_available = lambda: False
    else:
        torch.backends.mps.is_available = lambda: True
        torch._C._has_mps = True
        torch.mps._default_mps_generator = generator
        torch.mps.synchronize = lambda: Device.wait("synchronize")
        torch.mps.driver_allocated_memory = lambda: Device.used
    torch.Tensor.pin_memory = pin  # type: ignore[assignment,method-assign]
    F.scaled_dot_product_attention = attention
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # a parameter of the CPU cannot become one of the device
    torch._C._set_only_lift_cpu_tensors(True)
    SeesTheDevice().__enter__()
    run = threading.Thread.run

    def run_and_see(thread: threading.Thread) -> None:  # a mode holds in the thread that has entered it
        with SeesTheDevice():
            run(thread)

    threading.Thread.run = run_and_see  # type: ignore[method-assign]


@contextmanager
def without_numbers() -> Iterator[None]:
    """Inside, tensors that are made on the device have shapes and types only."""
    Device.numbers = False
    torch.fx.experimental._config.meta_nonzero_assume_all_nonzero = True
    try:
        yield
    finally:
        Device.numbers = True
