"""Machines to compile for when none is there: TPU slices, and a node of GPUs.

A compiler needs a description of the machine, not the machine. What comes out is the
program that would run there: its collectives and its memory are facts, its speed is
not measured.

Needs `pip install 'jax_ctc[aot]'`: libtpu for TPUs; the CUDA plugin, nvcc and nvvm for
GPUs, and no driver.
"""

import importlib.util
import math
import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

# libtpu looks for a machine unless it is told that there is none.
_WITHOUT_TPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_LOG_DIR": "disabled",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "true",
}

# Of an H100 SXM: what XLA's GPU compiler asks a device about.
_H100 = """
gpu_device_info {
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: 233472
  shared_memory_per_block_optin: 232448
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  thread_dim_limit_x: 1024
  thread_dim_limit_y: 1024
  thread_dim_limit_z: 64
  memory_bandwidth: 3350000000000
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  device_memory_size: 85029158912
  device_address_bits: 64
  device_vendor: "NVIDIA Corporation"
  driver_version: "13.0.0"
  runtime_version: "13.0.0"
  compile_time_toolkit_version: "13.0.0"
  dnn_version: "9.10.0"
  cuda_compute_capability { major: 9 minor: 0 feature_extension: ACCELERATED_FEATURES }
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 patch: 0 }
device_description_str: "H100 SXM"
"""

# And of an A100 SXM with 80 GB.
_A100 = _H100
for _old, _new in {
    "shared_memory_per_core: 233472": "shared_memory_per_core: 167936",
    "shared_memory_per_block_optin: 232448": "shared_memory_per_block_optin: 166912",
    "core_count: 132": "core_count: 108",
    "fpus_per_core: 128": "fpus_per_core: 64",
    "memory_bandwidth: 3350000000000": "memory_bandwidth: 2039000000000",
    "l2_cache_size: 52428800": "l2_cache_size: 41943040",
    "clock_rate_ghz: 1.98": "clock_rate_ghz: 1.41",
    "{ major: 9 minor: 0 feature_extension: ACCELERATED_FEATURES }": (
        "{ major: 8 minor: 0 }"
    ),
    "H100 SXM": "A100 SXM",
}.items():
    _A100 = _A100.replace(_old, _new)

# By name: the platform, and what `get_topology_desc` is told.
TARGETS: dict[str, tuple[str, dict[str, Any]]] = {
    "v5e x 1": (
        "tpu",
        {"topology_name": "v5e:1x1", "chips_per_host_bounds": [1, 1, 1]},
    ),
    "v6e x 1": (
        "tpu",
        {"topology_name": "v6e:1x1", "chips_per_host_bounds": [1, 1, 1]},
    ),
    "v5p x 1": (
        "tpu",
        {"topology_name": "v5p:1x1x1", "chips_per_host_bounds": [1, 1, 1]},
    ),
    "v4 x 1": ("tpu", {"topology_name": "v4:2x2x1"}),  # the smallest: four chips
    "v5e x 8": ("tpu", {"topology_name": "v5e:2x4"}),
    "v5e x 64": ("tpu", {"topology_name": "v5e:8x8"}),
    "v5e x 512": ("tpu", {"topology_name": "v5e:16x16", "num_slices": 2}),
    "v5p x 8": ("tpu", {"topology_name": "v5p:2x2x2"}),
    "v5p x 64": ("tpu", {"topology_name": "v5p:4x4x4"}),
    "v5p x 512": ("tpu", {"topology_name": "v5p:8x8x8"}),
    "H100 x 1": (
        "cuda",
        {"topology_name": "aot", "target_config": _H100, "topology": "1x1x1"},
    ),
    "A100 x 1": (
        "cuda",
        {"topology_name": "aot", "target_config": _A100, "topology": "1x1x1"},
    ),
    "H100 x 8": (
        "cuda",
        {"topology_name": "aot", "target_config": _H100, "topology": "1x1x8"},
    ),
}
_NEEDS = {
    "tpu": ("libtpu",),
    "cuda": ("jax_plugins.xla_cuda13", "nvidia.cu13"),
}


def missing(name: str) -> str | None:
    """Say which package a target lacks here, or None."""
    for package in _NEEDS[TARGETS[name][0]]:
        try:
            found = importlib.util.find_spec(package)
        except ModuleNotFoundError:
            found = None
        if found is None:
            return f"{package} is not installed: make aot, or pip install '.[aot]'"
    return None


def mesh_of(name: str, **axes: int) -> Mesh:
    """Return a mesh of the target's devices, axes in the order given."""
    platform, description = TARGETS[name]
    os.environ.update(_WITHOUT_TPU)
    devices = topologies.get_topology_desc(platform=platform, **description).devices
    return Mesh(
        np.array(devices)[: math.prod(axes.values())].reshape(tuple(axes.values())),
        tuple(axes),
        axis_types=(AxisType.Auto,) * len(axes),
    )


def compile_for(
    mesh: Mesh,
    function: Callable[..., Any],
    *arguments: tuple[tuple[int, ...], Any, PartitionSpec],
) -> Any:
    """Compile for the mesh's machine; an argument is a shape, a dtype and a place."""
    platform = mesh.devices.flat[0].platform
    abstract = (
        jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, place))
        for shape, dtype, place in arguments
    )
    traced = jax.jit(function).trace(*abstract)
    name = "cuda" if platform in ("gpu", "cuda") else platform
    return traced.lower(lowering_platforms=(name,)).compile()
