"""Where a TrainingJob runs and writes: spec.resources and spec.storage."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from trainyard_crds.common import ByteQuantity, CpuQuantity, DnsName, Rule, SpecModel, rules

_CORES, _MEMORY_GIB = 2, 8
"""What a process gets where the user says nothing."""
SHARED_ACCESS = "ReadWriteMany"
"""Access mode of a volume that pods on several nodes mount at once."""


class TolerationSpec(SpecModel):
    """A Kubernetes toleration."""

    key: str | None = Field(
        default=None, max_length=316, description="Taint key. Default: every key (operator Exists)."
    )
    operator: Literal["Exists", "Equal"] | None = Field(
        default=None, description="How value is compared. Default: Equal."
    )
    value: str | None = Field(default=None, max_length=63, description="Taint value the toleration matches.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="Taint effect to tolerate. Default: every effect."
    )
    toleration_seconds: int | None = Field(
        default=None, description="Seconds a NoExecute taint is tolerated. Default: for ever."
    )


class Resources(SpecModel):
    """What the training pods ask for."""

    gpus: int = Field(
        default=1,
        ge=0,
        le=64,
        description=(
            "GPUs of each pod; 0 trains on the CPU. With several, one process trains on each: lora and qlora hold the "
            "whole model on every GPU, full spreads it over all of them. An optimizer step takes batchSize x "
            "gradientAccumulation x gpus x nodes sequences."
        ),
    )
    nodes: int = Field(
        default=1,
        ge=1,
        le=64,
        description=(
            "Pods that train together, each with gpus GPUs; they start together or not at all. An optimizer step takes "
            "batchSize x gradientAccumulation x gpus x nodes sequences. With more than 1 the run's volume must allow "
            "pods on several nodes to mount it at once (ReadWriteMany)."
        ),
    )
    gpu_resource: str = Field(
        default="nvidia.com/gpu",
        min_length=3,
        max_length=253,
        description="Extended resource a GPU is counted by.",
        json_schema_extra=rules(
            Rule(
                r"self.matches(r'^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-\w.]*[A-Za-z0-9])?$')",
                "spec.resources.gpuResource must be a resource name with a domain, for example nvidia.com/gpu",
            )
        ),
    )
    cpu: CpuQuantity | None = Field(
        default=None,
        description="CPU cores requested and allowed for each pod; torch uses as many threads. Default: 2 for each "
        "GPU, at least 2.",
    )
    memory: ByteQuantity | None = Field(
        default=None,
        description="Memory requested and allowed for each pod, /dev/shm included. Default: 8Gi for each GPU, at least "
        "8Gi.",
    )
    node_selector: dict[str, Annotated[str, Field(max_length=63)]] | None = Field(
        default=None, max_length=16, description="Labels a node must have."
    )
    tolerations: list[TolerationSpec] | None = Field(
        default=None,
        max_length=16,
        description="Taints the pod tolerates.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )

    @property
    def processes(self) -> int:
        """Processes of each pod."""
        return max(1, self.gpus)

    @property
    def cpu_limit(self) -> str:
        """CPU cores of each pod, a quantity."""
        return self.cpu or str(_CORES * self.processes)

    @property
    def memory_limit(self) -> str:
        """Memory of each pod, a quantity."""
        return self.memory or f"{_MEMORY_GIB * self.processes}Gi"


class SharedCache(SpecModel):
    """A volume on which jobs keep what each of them would download and tokenise again."""

    claim_name: DnsName = Field(
        description=(
            "An existing PersistentVolumeClaim; ReadWriteMany, so that jobs on several nodes can use it at once. "
            "Models that hf download put into its folder huggingface/hub are used too."
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
        default=None, description="An existing PersistentVolumeClaim. Default: one is made for this job."
    )
    size: ByteQuantity | None = Field(default=None, description="Size of the claim that is made. Default: 10Gi.")
    storage_class_name: DnsName | None = Field(
        default=None, description="Storage class of the claim that is made. Default: the cluster's default class."
    )
    access_mode: Literal["ReadWriteOnce", "ReadWriteOncePod", "ReadWriteMany"] | None = Field(
        default=None,
        description="Access mode of the claim that is made. Default: ReadWriteOnce; ReadWriteMany with several nodes.",
    )
    retain: bool | None = Field(
        default=None, description="Whether the claim that is made outlives the TrainingJob. Default: true."
    )
    cache: SharedCache | None = Field(
        default=None,
        description="Volume for downloaded models and rows and for tokens, shared by every job that names it. Default: "
        "each pod downloads for itself.",
    )

    @property
    def claim_size(self) -> str:
        """Size of the claim that is made."""
        return self.size or "10Gi"

    @property
    def is_retained(self) -> bool:
        """Whether the claim that is made outlives the TrainingJob."""
        return self.retain is not False

    def claim_access_mode(self, nodes: int) -> str:
        """Return the access mode of the claim that is made for a number of nodes."""
        return self.access_mode or (SHARED_ACCESS if nodes > 1 else "ReadWriteOnce")
