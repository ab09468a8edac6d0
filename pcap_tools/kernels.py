"""What every compiled kernel shares: the typed decorator and raw memory access.

Kernels work on the addresses of whole frames, because a frame's fields are unaligned and of mixed
width: one unaligned load replaces up to eight byte loads and shifts. A kernel that takes an
address trusts it; bounds are checked by the code that computes the offsets.

Words are read in the machine's byte order. The internet checksum does not depend on it (RFC 1071
§2(B)), and everything else swaps explicitly.
"""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.caching import FunctionCache
from numba.core.runtime import rtsys  # type: ignore[attr-defined]
from numba.core.typing.typeof import _typeof_ndarray, typeof_impl
from numba.extending import intrinsic
from numba.np import numpy_support

from pcap_tools.freshness import source_stamp

__all__ = [
    "I32",
    "I64",
    "U8",
    "U16",
    "U32",
    "U64",
    "as_int",
    "copy_bytes",
    "inlined",
    "inner",
    "is_cached",
    "kernel",
    "load16",
    "load32",
    "load64",
    "load_u8",
    "move_bytes",
    "on_missing",
    "prefetch",
    "store16",
    "store32",
    "store64",
    "sum_blocks",
    "swap16",
    "swap32",
    "swap64",
    "trailing_zeros",
]

U8 = npt.NDArray[np.uint8]
U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]


@typeof_impl.register(np.ndarray)
def _array_type(value: Any, context: Any) -> Any:
    """numba's type of an array, which itself would import numpy.ma for it: 40 ms."""
    if type(value) is not np.ndarray:
        return _typeof_ndarray(value, context)  # type: ignore[no-untyped-call]
    kind = numpy_support.from_dtype(value.dtype)
    layout = numpy_support.map_layout(value)
    return types.Array(kind, value.ndim, layout, readonly=not value.flags.writeable)


_F = TypeVar("_F", bound=Callable[..., Any])


def kernel(function: _F) -> _F:
    """Compile to machine code, cached on disk, without the interpreter lock."""
    return _compiled(function)


def inner(function: _F) -> _F:
    """A kernel that only kernels call: what Python would need to call it is not compiled, which is
    a quarter of the time."""
    return _compiled(function, no_cpython_wrapper=True)


def inlined(function: _F) -> _F:
    """A kernel copied into its callers: every array handed to a call that stays one costs two
    atomic reference counts, which in a loop over packets is most of the time."""
    return _compiled(function, inline="always")


on_missing: list[Callable[[str], bool]] = []
"""Asked with a module's name before one of its kernels is compiled: is it worth another look?"""


class _Cache(FunctionCache):
    """A cache of compiled kernels that loads what it has without preparing to compile.

    numba readies its whole compiler before it looks into the cache: 0.4 s of every command. What
    machine code needs is the runtime alone; the rest waits for the first kernel that is missing.
    """

    announced = False
    _compiling = 0

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)  # type: ignore[no-untyped-call]
        self._cache_file._source_stamp = source_stamp(Path(function.__code__.co_filename))

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        rtsys.initialize(target_context)
        module = self._py_func.__module__
        with self._guard_against_spurious_io_errors():
            found = self._load_overload(sig, target_context)  # type: ignore[no-untyped-call]
            if found is None and any(ask(module) for ask in on_missing):
                found = self._load_overload(sig, target_context)  # type: ignore[no-untyped-call]
            if found is not None:
                return found
        self._announce()
        # A compilation makes millions of objects that live on, and few cycles: collecting garbage
        # meanwhile takes a twelfth of the time.
        if _Cache._compiling or gc.isenabled():
            gc.disable()
            _Cache._compiling += 1
        target_context.refresh()
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        super().save_overload(sig, data)  # type: ignore[no-untyped-call]
        if _Cache._compiling:
            _Cache._compiling -= 1
            if not _Cache._compiling:
                gc.enable()

    def known(self) -> bool:
        """Whether there is anything for the present source of the function."""
        return bool(self._cache_file._load_index())  # type: ignore[no-untyped-call]

    @classmethod
    def _announce(cls) -> None:
        if not cls.announced and sys.stderr.isatty():
            print("compiling kernels, once on this machine …", file=sys.stderr, flush=True)
        cls.announced = True


def is_cached(function: Callable[..., Any]) -> bool:
    """Whether a kernel is in the cache, for any types; True where there is no cache at all."""
    cache = getattr(function, "_cache", None)
    return cache.known() if isinstance(cache, _Cache) else True


def _compiled(function: _F, **options: Any) -> _F:
    # numba's stubs do not name all of its options.
    jit = cast(Any, numba.njit)
    compiled = jit(nogil=True, no_cfunc_wrapper=True, **options)(function)
    # Without a place for it (a user without a home, a read-only installation) there is no cache.
    with contextlib.suppress(RuntimeError):
        compiled._cache = _Cache(function)
    return cast(_F, compiled)


@inner
def as_int(value: Any) -> int:
    """A number as int64: mixing uint64 with int64 would make it a float."""
    return np.int64(value)  # type: ignore[return-value]


def _loader(bits: int, result: types.Integer) -> Any:
    @intrinsic
    def load(typing: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            word = ir.IntType(bits)
            value = builder.load(builder.inttoptr(args[0], word.as_pointer()))
            value.align = 1
            return builder.zext(value, ir.IntType(64)) if bits < 64 else value

        return result(types.int64), generate

    return load


def _storer(bits: int) -> Any:
    @intrinsic
    def store(typing: Any, address: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            word = ir.IntType(bits)
            value = builder.trunc(args[1], word) if bits < 64 else args[1]
            builder.store(value, builder.inttoptr(args[0], word.as_pointer())).align = 1
            return context.get_dummy_value()

        return types.void(types.int64, types.uint64), generate

    return store


def _swapper(bits: int) -> Any:
    @intrinsic
    def swap(typing: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            word = ir.IntType(bits)
            narrow = builder.trunc(args[0], word) if bits < 64 else args[0]
            swapped = builder.bswap(narrow)
            return builder.zext(swapped, ir.IntType(64)) if bits < 64 else swapped

        return types.uint64(types.uint64), generate

    return swap


def _zero_counter() -> Any:
    @intrinsic
    def count(typing: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

        return types.uint64(types.uint64), generate

    return count


trailing_zeros = _zero_counter()
"""How many of a word's lowest bits are zero."""

load_u8 = _loader(8, types.uint64)
load16 = _loader(16, types.uint64)
load32 = _loader(32, types.uint64)
load64 = _loader(64, types.uint64)
store16 = _storer(16)
store32 = _storer(32)
store64 = _storer(64)
swap16 = _swapper(16)
swap32 = _swapper(32)
swap64 = _swapper(64)


def _copier(how: Callable[..., Any]) -> Any:
    @intrinsic
    def copy(typing: Any, target: Any, source: Any, size: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            byte = ir.IntType(8).as_pointer()
            how(
                builder,
                builder.inttoptr(args[0], byte),
                builder.inttoptr(args[1], byte),
                args[2],
                1,
            )
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.int64), generate

    return copy


def _summer() -> Any:
    @intrinsic
    def add_up(typing: Any, address: Any, blocks: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            # Written as vectors: a loop over unaligned loads is not made into them by itself.
            narrow, wide = (ir.VectorType(ir.IntType(bits), 8) for bits in (32, 64))
            zero = ir.Constant(wide, [0] * 8)
            total = cgutils.alloca_once_value(builder, zero)  # type: ignore[no-untyped-call]
            with cgutils.for_range(builder, args[1]) as loop:
                place = builder.add(
                    args[0], builder.mul(loop.index, ir.Constant(loop.index.type, 32))
                )
                words = builder.load(builder.inttoptr(place, narrow.as_pointer()))
                words.align = 1
                builder.store(builder.add(builder.load(total), builder.zext(words, wide)), total)
            kind = ir.FunctionType(ir.IntType(64), [wide])
            name = "llvm.vector.reduce.add.v8i64"
            add = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
                builder.module, kind, name
            )
            return builder.call(add, [builder.load(total)])

        return types.uint64(types.int64, types.int64), generate

    return add_up


sum_blocks = _summer()
"""Sum of the 32-bit words of so many blocks of 32 bytes at an address; no sum of 2^32 overflows."""


def _prefetcher() -> Any:
    @intrinsic
    def prefetch(typing: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            byte, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
            function = builder.module.declare_intrinsic(
                "llvm.prefetch", [byte], ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag])
            )
            # For reading or writing (0), to be kept in all cache levels (3), as data (1).
            hints = [ir.Constant(flag, number) for number in (0, 3, 1)]
            builder.call(function, [builder.inttoptr(args[0], byte), *hints])
            return context.get_dummy_value()

        return types.void(types.int64), generate

    return prefetch


prefetch = _prefetcher()
"""Begin to fetch the cache line of an address, which need not be mapped."""

copy_bytes = _copier(cgutils.raw_memcpy)
"""memcpy(3) between two addresses (target, source, size); the areas do not overlap."""

move_bytes = _copier(cgutils.raw_memmove)
"""memmove(3) between two addresses (target, source, size)."""
