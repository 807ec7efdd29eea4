"""The engine's command line and variables: vLLM, from the spec and the ranks of the adapters."""

from __future__ import annotations

from collections.abc import Iterable

from trainyard_crds.constants import GPU_VISIBILITY_ENV, SCRATCH_DIRECTORIES
from trainyard_crds.serving import ADAPTER_RANKS, ENGINE_PORT, ServingConfig
from trainyard_kube.paths import Object
from trainyard_operator.modeldeployment.spec import Spec
from trainyard_operator.pod_template import blocks
from trainyard_operator.quantity import whole_units

RUNTIME = "vllm"
_PROGRAM = ["python3", "-m", "vllm.entrypoints.openai.api_server"]
"""The console command `vllm` of the package for CPUs does not start."""
_MIN_RANK = 16
"""vLLM's own default of --max-lora-rank."""
_MAX_LORAS = 4
"""Adapters in one batch. More can be loaded: the engine swaps them."""
_MAX_CPU_LORAS = 32
"""Adapters that stay in host memory. The engine reads others from their files again at a request, and answers nothing
meanwhile."""
_NO_DOMAIN = "none.invalid"
"""The engine fetches media from no address; the proxy refuses them before."""
_GIB = 2**30
_CPU_CACHE_SHARE = 4
"""Memory of a replica without GPUs divided by its space for keys and values."""


def max_adapter_rank(wanted: int | None, known: int | None, ranks: Iterable[int]) -> int:
    """Return the largest rank of adapters that the engine is started for.

    Args:
        wanted: spec.maxAdapterRank.
        known: The rank that running replicas were started for; it stays, since another one would restart them.
        ranks: Ranks of the adapters, as far as they are known.
    """
    if wanted is not None:
        return _accepted(wanted)
    return known if known is not None else _accepted(max([_MIN_RANK, *ranks]))


def _accepted(rank: int) -> int:
    return next((accepted for accepted in ADAPTER_RANKS if accepted >= rank), ADAPTER_RANKS[-1])


def command(spec: Spec, config: ServingConfig) -> list[str]:
    """Return the engine's command line; flags in spec.args replace those set here."""
    flags: dict[str, str | None] = {
        "model": config.model_path,
        "served-model-name": config.base_name,
        "host": "127.0.0.1",
        "port": str(ENGINE_PORT),
        "enable-lora": None,
        "max-loras": str(_MAX_LORAS),
        "max-cpu-loras": str(_MAX_CPU_LORAS),
        "max-lora-rank": str(config.max_adapter_rank),
        "shutdown-timeout": str(spec.drain_seconds),
        "allowed-media-domains": _NO_DOMAIN,
    }
    if spec.resources.gpus > 1:
        flags["tensor-parallel-size"] = str(spec.resources.gpus)
    for argument in spec.args or []:
        name, has_value, value = argument.removeprefix("--").partition("=")
        flags[name] = value if has_value else None
    return [*_PROGRAM, *(f"--{name}" if value is None else f"--{name}={value}" for name, value in flags.items())]


def environment(spec: Spec) -> list[Object]:
    """Return the engine's variables."""
    home = SCRATCH_DIRECTORIES["HOME"]
    variables = {
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_CACHE_ROOT": f"{home}/vllm",
        "VLLM_CONFIG_ROOT": f"{home}/vllm-config",
        # The user has no entry in the passwd file of the public image, and torch asks for its name.
        "USER": "trainyard",
        "LOGNAME": "trainyard",
    }
    if not spec.resources.gpus:
        variables |= _cpu_variables(spec)
    return [*blocks.scratch_env(), *(blocks.env(name, value) for name, value in variables.items())]


def _cpu_variables(spec: Spec) -> dict[str, str]:
    memory, cores = whole_units(spec.resources.memory_limit), max(1, whole_units(spec.resources.cpu_limit))
    return {
        GPU_VISIBILITY_ENV: "void",
        "VLLM_CPU_KVCACHE_SPACE": str(max(1, memory // _CPU_CACHE_SHARE // _GIB)),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(cores),
        # One process instead of two: less memory and a faster start, the same answers.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    }
