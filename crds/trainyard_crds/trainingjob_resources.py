"""Resources and volumes of a TrainingJob: spec.resources and spec.storage."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from trainyard_crds.common import ByteQuantity, CpuQuantity, DnsName, Rule, SpecModel, rules
from trainyard_crds.placement import DeviceClaim, NodeRequirement, OtherResource, TopologySpread

DEFAULT_CLAIM_SIZE = "10Gi"
MAX_GPUS, MAX_NODES = 64, 64
_CORES, _MEMORY_GIB = 2, 8
"""Defaults of each process."""
SHARED_ACCESS = "ReadWriteMany"
"""Access mode of a volume that pods on several nodes mount at once."""


class TolerationSpec(SpecModel):
    """A Kubernetes toleration."""

    key: str | None = Field(
        default=None, max_length=316, description="Taint key. Default: every key (operator Exists)."
    )
    operator: Literal["Exists", "Equal"] | None = Field(
        default=None, description="Comparison of value. Default: Equal."
    )
    value: str | None = Field(default=None, max_length=63, description="Taint value that is tolerated.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="Taint effect to tolerate. Default: every effect."
    )
    toleration_seconds: int | None = Field(
        default=None, description="Seconds a NoExecute taint is tolerated. Default: unlimited."
    )


class Resources(SpecModel):
    """Resources of the trainer pods."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "!has(self.topologySpread) || self.nodes > 1",
                "spec.resources.topologySpread has no effect with a single pod; remove it, or set nodes above 1",
            ),
            Rule(
                "!has(self.extended) || !self.extended.exists(e, e.name == self.gpuResource)",
                "spec.resources.extended: GPUs are counted by spec.resources.gpus; remove the entry of gpuResource",
            ),
        )
    )

    gpus: int = Field(
        default=1,
        ge=0,
        le=MAX_GPUS,
        description=(
            "GPUs of each pod; 0 trains on the CPU. With several, one process trains on each: lora and qlora hold the "
            "whole model on every GPU, full shards it over all of them. An optimizer step takes batchSize x "
            "gradientAccumulation x gpus x nodes sequences."
        ),
    )
    nodes: int = Field(
        default=1,
        ge=1,
        le=MAX_NODES,
        description=(
            "Pods that train together, each with `gpus` GPUs; they are admitted and started together. An optimizer "
            "step takes "
            "batchSize x gradientAccumulation x gpus x nodes sequences. With more than 1, the volume of the run "
            "must be "
            "mountable by pods on several nodes (ReadWriteMany)."
        ),
    )
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
        description="CPU request and limit of each pod, in cores; torch uses the same number of threads. Default: "
        f"{_CORES} per GPU, at least {_CORES}.",
    )
    memory: ByteQuantity | None = Field(
        default=None,
        description=f"Memory request and limit of each pod, including /dev/shm. Default: {_MEMORY_GIB}Gi per GPU, "
        "at least "
        f"{_MEMORY_GIB}Gi.",
    )
    ephemeral_storage: ByteQuantity | None = Field(
        default=None,
        description="Ephemeral storage of each pod, request and limit: downloads and caches without spec.storage.cache,"
        " /tmp and the log count against it. Default: the chart's training.ephemeralStorage, else no limit but that of "
        "the namespace's LimitRange.",
    )
    scratch_size: ByteQuantity | None = Field(
        default=None,
        description="Size limit of the home directory: downloads, compiler caches. Default: the chart's "
        "training.scratchSize, 100Gi.",
    )
    tmp_size: ByteQuantity | None = Field(
        default=None, description="Size limit of /tmp. Default: the chart's training.tmpSize, 10Gi."
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
    topology_spread: list[TopologySpread] | None = Field(
        default=None,
        min_length=1,
        max_length=4,
        description="Domains over which the pods of a job with several nodes are spread where possible; the queue's "
        "choice of nodes does not depend on it. Default: none.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["topologyKey"]},
    )
    extended: list[OtherResource] | None = Field(
        default=None,
        max_length=8,
        description="Further resources of each training pod: network devices, huge pages. The queue does not count "
        "them. Default: none.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    claims: list[DeviceClaim] | None = Field(
        default=None,
        max_length=8,
        description="Claims of devices (dynamic resource allocation, Kubernetes 1.34) of each training pod, such as "
        "network devices. GPUs are requested by gpus: the queue does not count claims. Default: none.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    tolerations: list[TolerationSpec] | None = Field(
        default=None,
        max_length=16,
        description="Taints that the pods tolerate.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )

    @property
    def processes(self) -> int:
        """Processes of each pod."""
        return max(1, self.gpus)

    @property
    def further(self) -> tuple[tuple[str, str], ...]:
        """Names and quantities of the further resources of each pod, ephemeral storage included."""
        storage = (("ephemeral-storage", self.ephemeral_storage),) if self.ephemeral_storage else ()
        return (*storage, *((entry.name, entry.quantity) for entry in self.extended or []))

    @property
    def cpu_limit(self) -> str:
        """CPU cores of each pod, a quantity."""
        return self.cpu or str(_CORES * self.processes)

    @property
    def memory_limit(self) -> str:
        """Memory of each pod, a quantity."""
        return self.memory or f"{_MEMORY_GIB * self.processes}Gi"


class SharedCache(SpecModel):
    """A volume with downloads and tokenised rows that jobs share."""

    claim_name: DnsName = Field(
        description=(
            "An existing PersistentVolumeClaim; ReadWriteMany if jobs on several nodes use it. Models that `hf "
            "download` "
            "stored in its folder huggingface/hub are used too."
        )
    )


class Storage(SpecModel):
    """The volume that holds the run directory: checkpoints, metrics, exports."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "!has(self.claimName) || !(has(self.size) || has(self.storageClassName) || has(self.accessMode) "
                "|| has(self.retain))",
                "spec.storage.claimName names an existing claim; remove size, storageClassName, accessMode and retain",
            )
        )
    )

    claim_name: DnsName | None = Field(
        default=None, description="An existing PersistentVolumeClaim. Default: a claim is created for the job."
    )
    size: ByteQuantity | None = Field(
        default=None, description=f"Size of the created claim. Default: {DEFAULT_CLAIM_SIZE}."
    )
    storage_class_name: DnsName | None = Field(
        default=None, description="Storage class of the created claim. Default: the cluster's default class."
    )
    access_mode: Literal["ReadWriteOnce", "ReadWriteOncePod", "ReadWriteMany"] | None = Field(
        default=None,
        description="Access mode of the created claim. Default: ReadWriteOnce, or ReadWriteMany with several nodes.",
    )
    retain: bool | None = Field(
        default=None, description="Whether the created claim is kept when the TrainingJob is deleted. Default: true."
    )
    cache: SharedCache | None = Field(
        default=None,
        description="Volume for downloads and tokenised rows, shared by all jobs that name it. Default: none, each pod "
        "downloads.",
    )

    @property
    def claim_size(self) -> str:
        """Size of the created claim."""
        return self.size or DEFAULT_CLAIM_SIZE

    @property
    def is_retained(self) -> bool:
        """Whether the created claim is kept when the TrainingJob is deleted."""
        return self.retain is not False

    def claim_access_mode(self, nodes: int) -> str:
        """Return the access mode of the created claim."""
        return self.access_mode or (SHARED_ACCESS if nodes > 1 else "ReadWriteOnce")
