"""How a ModelDeployment serves: resources, engine arguments, rollout, route, scale to zero."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from trainyard_crds.common import ByteQuantity, CpuQuantity, DnsName, Rule, SpecModel, rules
from trainyard_crds.placement import NodeRequirement
from trainyard_crds.trainingjob_resources import MAX_GPUS, TolerationSpec

Runtime = Literal["auto", "vllm"]
ServiceType = Literal["ClusterIP", "NodePort", "LoadBalancer"]
DEFAULT_PORT = 8000
DEFAULT_DRAIN_SECONDS = 60
_CORES, _MEMORY_GIB = 2, 8
"""Defaults per GPU, at least one GPU's."""

ENGINE_FLAGS = (
    "block-size",
    "chat-template-content-format",
    "dtype",
    "enable-auto-tool-choice",
    "enable-chunked-prefill",
    "enable-prefix-caching",
    "no-enable-prefix-caching",
    "enforce-eager",
    "generation-config",
    "gpu-memory-utilization",
    "kv-cache-dtype",
    "kv-cache-memory-bytes",
    "limit-mm-per-prompt",
    "max-cpu-loras",
    "max-loras",
    "max-logprobs",
    "max-model-len",
    "max-num-batched-tokens",
    "max-num-seqs",
    "quantization",
    "reasoning-parser",
    "seed",
    "swap-space",
    "tokenizer-mode",
    "tool-call-parser",
)
"""Flags of vLLM that spec.args may set. Not among them: what Trainyard sets itself, and what would load code, files of
the node or another model, or open a port."""
_FLAG = "^--(" + "|".join(ENGINE_FLAGS) + r")(=\S+)?$"
EngineFlag = Annotated[
    str,
    Field(
        max_length=1024,
        json_schema_extra=rules(
            Rule(
                f"self.matches(r'{_FLAG}')",
                "must be a flag of vLLM that `kubectl explain md.spec.args` lists, written --name=value or --name, "
                "without blanks; models, adapters, ranks, GPUs and ports have fields in the spec, and other flags "
                "would load code or files",
            )
        ),
    ),
]


class ServingResources(SpecModel):
    """Resources of each replica."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "self.nodes == 1",
                "spec.resources.nodes: a replica runs on one node; use more GPUs of one node (spec.resources.gpus), or "
                "a smaller or quantised model",
            )
        )
    )

    gpus: int = Field(
        default=1,
        ge=0,
        le=MAX_GPUS,
        description="GPUs of each replica; with several the model is split over them (tensor parallelism). 0 serves on "
        "the CPU.",
    )
    nodes: int = Field(default=1, ge=1, description="Nodes of each replica: 1.")
    gpu_resource: str = Field(
        default="nvidia.com/gpu",
        min_length=3,
        max_length=253,
        description="Extended resource that counts GPUs.",
        json_schema_extra=rules(
            Rule(
                r"self.matches(r'^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-\w.]*[A-Za-z0-9])?$')",
                "spec.resources.gpuResource must be a resource name with a domain, for example nvidia.com/gpu",
            )
        ),
    )
    cpu: CpuQuantity | None = Field(
        default=None,
        description=f"CPU request and limit of the engine, in cores. Default: {_CORES} per GPU, at least {_CORES}.",
    )
    memory: ByteQuantity | None = Field(
        default=None,
        description=f"Memory request and limit of the engine, including /dev/shm. Default: {_MEMORY_GIB}Gi per GPU, at "
        f"least {_MEMORY_GIB}Gi.",
    )
    ephemeral_storage: ByteQuantity | None = Field(
        default=None,
        description="Ephemeral storage of each replica, request and limit: the fetched model, without spec.cache, and "
        "adapters count against it. Default: no limit but that of the namespace's LimitRange.",
    )
    node_selector: dict[str, Annotated[str, Field(max_length=63)]] | None = Field(
        default=None, max_length=16, description="Labels that a node must have."
    )
    node_affinity: list[NodeRequirement] | None = Field(
        default=None,
        min_length=1,
        max_length=16,
        description="Requirements on labels that a node must meet, all of them. Default: none.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    tolerations: list[TolerationSpec] | None = Field(
        default=None,
        max_length=16,
        description="Taints that the pods tolerate.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )

    @property
    def cpu_limit(self) -> str:
        """CPU cores of the engine, a quantity."""
        return self.cpu or str(_CORES * max(1, self.gpus))

    @property
    def memory_limit(self) -> str:
        """Memory of the engine, a quantity."""
        return self.memory or f"{_MEMORY_GIB * max(1, self.gpus)}Gi"


class Rollout(SpecModel):
    """How replicas are replaced when the model, the engine or the resources change."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "!has(self.maxSurge) || !has(self.maxUnavailable) || self.maxSurge > 0 || self.maxUnavailable > 0",
                "spec.rollout: maxSurge and maxUnavailable are both 0, so no replica could ever be replaced; set one "
                "of them to 1",
            )
        )
    )

    max_surge: int | None = Field(
        default=None,
        ge=0,
        le=100,
        description="Replicas started beyond spec.replicas. Default: 1 without GPUs; 0 with GPUs, since a surge needs "
        "free ones.",
    )
    max_unavailable: int | None = Field(
        default=None,
        ge=0,
        le=100,
        description="Replicas that may be missing meanwhile. Default: 0 where maxSurge is above 0, else 1.",
    )


HostName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=253,
        json_schema_extra=rules(
            Rule(
                r"self.matches(r'^([*][.])?[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",
                "must be a host name in lower case, for example chat.example.com, without scheme, port and path",
            )
        ),
    ),
]


class GatewayReference(SpecModel):
    """A Gateway of the Gateway API."""

    name: DnsName = Field(description="Name of the Gateway.")
    namespace: DnsName | None = Field(
        default=None,
        max_length=63,
        description="Its namespace; its allowedRoutes must admit this one. Default: this namespace.",
    )
    section_name: DnsName | None = Field(default=None, description="Its listener. Default: all listeners.")


class Route(SpecModel):
    """An HTTPRoute to the Service; needs the Gateway API in the cluster."""

    gateway: GatewayReference = Field(description="The Gateway that carries the route.")
    hostnames: list[HostName] | None = Field(
        default=None, min_length=1, max_length=16, description="Host names of the route. Default: the Gateway's."
    )


class ScaleToZero(SpecModel):
    """Stops all replicas while nothing is asked; the gateway's activator holds first requests and starts them again."""

    idle_seconds: int = Field(
        default=900, ge=60, le=604_800, description="Seconds without a request after which the replicas are stopped."
    )
    max_waiting: int = Field(
        default=100,
        ge=1,
        le=1000,
        description="Requests that wait for the first replica; those beyond get 503 with Retry-After.",
    )
    timeout_seconds: int = Field(
        default=600,
        ge=5,
        le=3600,
        description="Seconds that a request waits for the first replica; then it gets 503 with Retry-After.",
    )


class ServingVolume(SpecModel):
    """A claim that is mounted read-only in every replica, for pvc:// sources of adapters."""

    claim_name: DnsName = Field(
        description="An existing PersistentVolumeClaim of this namespace; adapters with pvc:// sources on it can be "
        "added without a restart."
    )


class CacheVolume(SpecModel):
    """A volume with downloads that replicas share."""

    claim_name: DnsName = Field(
        description="An existing PersistentVolumeClaim of this namespace; ReadWriteMany if replicas run on several "
        "nodes."
    )
