"""Compile the trajectory kernels for GPUs that are not here: `python fused_compiled.py OUT`, a JSON list of what Triton
and NVIDIA's assembler, which comes with it, report."""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import triton
from tats.models.fused import pooling_kernels, tiles, trajectory_kernels
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

ASSEMBLER = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"
FLOAT32 = {"lse", "delta", "weights", "d_scores", "partial"}
HALF = {"q", "k", "v", "out", "d_out", "d_q", "d_k", "d_v", "left", "trajectories", "first_weight", "second_weight",
        "found", "queries", "gradient", "key_weight", "value_weight", "d_trajectories"}
UNKNOWN = {"heads", "frames", "places"}   # need not be multiples of 16; the other whole numbers are, of ViT-B


def compiled(name, kernel, constants, capability, warps):
    """Of bf16 with 64 channels a head."""
    signature, hints = {}, {}
    for index, argument in enumerate(kernel.arg_names):
        if argument in constants:
            signature[argument] = "constexpr"
        elif argument in FLOAT32 | HALF:
            signature[argument] = "*fp32" if argument in FLOAT32 else "*bf16"
        else:
            signature[argument] = "fp32" if argument.endswith("scale") else "i32"
        if argument not in constants and argument not in UNKNOWN and not argument.endswith("scale"):
            hints[(index,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constexprs=constants, attrs=hints)
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps})
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(made.asm["ptx"])
        file.flush()
        said = subprocess.run([ASSEMBLER, "-v", f"--gpu-name=sm_{capability}{'a' * (capability == 90)}", file.name,
                               "-o", "/dev/null"], capture_output=True, text=True, check=True).stderr
    return {"kernel": name, "capability": capability, "shared": made.metadata.shared,
            "registers": int(re.search(r"Used (\d+) registers", said)[1]),
            "spilled": int(re.search(r"(\d+) bytes spill stores", said)[1]),
            "matrix_units": len(re.findall(r"\b(?:wgmma\.mma_async|mma\.sync)", made.asm["ptx"]))}


def main(out):
    rows = []
    side, ones = tiles.side(64, 2), {"q_d": 1, "k_d": 1, "v_d": 1}
    of_rows = {"ROWS": tiles.rows_at_once(8, 2), "FRAMES": 8, "WIDTH": 64, "CHANNELS": tiles.CHANNELS, "WIDEN": False}
    heads = tiles.heads_at_once(12, 64, 2)
    weights = {name: value for name, value in of_rows.items() if name != "FRAMES"}
    for name in ("forward", "backward_queries", "backward_keys"):
        for capability in (80, 90)[name != "backward_queries":]:
            rows.append(compiled(name, getattr(trajectory_kernels, name), ones | {
                "QUERIES": side, "KEYS": side, "WIDTH": 64, "WIDEN": False}, capability, tiles.WARPS_EQ_1))
    for name, kernel, constants in (
            ("pool", pooling_kernels.pool, of_rows | {"HEADS": heads, "BACKWARD": False}),
            ("pool backward", pooling_kernels.pool, of_rows | {"HEADS": heads, "BACKWARD": True}),
            ("backward_trajectories", pooling_kernels.backward_trajectories, of_rows),
            ("backward_weights", pooling_kernels.backward_weights, weights | {
                "HEADS": heads, "ROWS": tiles.LEAST_ROWS})):
        for capability in (80, 90)[name != "backward_weights":]:
            rows.append(compiled(name, kernel, constants, capability, tiles.WARPS_EQ_2))
    Path(out).write_text(json.dumps(rows))


if __name__ == "__main__":
    main(sys.argv[1])
