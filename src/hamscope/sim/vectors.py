"""What the kernels ask of the compiler beyond Python: wide vectors, and exchanging the halves of a word.

LLVM uses vectors of 256 bits on many CPUs that have 512 (AVX-512).  Multi-spin kernels do nothing but whole-word
arithmetic and gain a third from the wide ones, so they ask for them, each for itself: a function attribute, ignored
where the CPU has no such vectors.  All forms give the same bits.
"""

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.extending import intrinsic


@intrinsic
def wide_vectors(typingctx):
    """Compile the function that calls this for vectors of 512 bits, where the CPU has them."""

    def codegen(context, builder, signature, args):
        # llvmlite's own `add` knows only attributes without a value.
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.none(), codegen


@intrinsic
def swap_halves(typingctx, word):
    """The 64-bit word with its upper and lower 32 bits exchanged.

    Written as two shifts, LLVM would turn one of them into a multiplication, several times as dear.
    """

    def codegen(context, builder, signature, args):
        bits = ir.IntType(64)
        rotate = builder.module.declare_intrinsic("llvm.fshl", [bits], ir.FunctionType(bits, [bits] * 3))
        return builder.call(rotate, [args[0], args[0], bits(32)])

    return types.uint64(types.uint64), codegen


def kernel_form() -> str:
    """The form of the kernels on this machine, for the record of a run: compiler, CPU and width of the vectors."""
    features = llvmlite.binding.get_host_cpu_features()
    width = next((w for name, w in (("avx512f", 512), ("avx2", 256), ("sve", 128)) if features.get(name)), 128)
    return f"numba for {llvmlite.binding.get_host_cpu_name()}, vectors of {width} bits"
