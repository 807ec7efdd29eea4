"""Where a TrainingJob runs and writes: spec.resources and spec.storage."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from trainyard_crds.common import ByteQuantity, CpuQuantity, DnsName, SpecModel, cel, rules


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
    """What the training pod asks for."""

    gpus: int = Field(default=1, ge=0, le=1, description="GPUs of the pod: 1, or 0 to train on the CPU.")
    gpu_resource: str = Field(
        default="nvidia.com/gpu",
        min_length=3,
        max_length=253,
        description="Extended resource a GPU is counted by.",
        json_schema_extra=rules(
            cel(
                r"self.matches(r'^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-\w.]*[A-Za-z0-9])?$')",
                "spec.resources.gpuResource must be a resource name with a domain, for example nvidia.com/gpu",
            )
        ),
    )
    cpu: CpuQuantity = Field(default="2", description="CPU cores requested and allowed; torch uses as many threads.")
    memory: ByteQuantity = Field(default="8Gi", description="Memory requested and allowed, /dev/shm included.")
    node_selector: dict[str, Annotated[str, Field(max_length=63)]] | None = Field(
        default=None, max_length=16, description="Labels a node must have."
    )
    tolerations: list[TolerationSpec] | None = Field(
        default=None,
        max_length=16,
        description="Taints the pod tolerates.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )


class SharedCache(SpecModel):
    """A volume on which jobs keep what each of them would download and tokenise again."""

    claim_name: DnsName = Field(
        description=(
            "An existing PersistentVolumeClaim; ReadWriteMany, so that jobs on several nodes can use it at once. Models "
            "that hf download put into its folder huggingface/hub are used too."
        )
    )


class Storage(SpecModel):
    """The volume that holds the run directory: checkpoints, metrics, exports."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            cel(
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
        default=None, description="Access mode of the claim that is made. Default: ReadWriteOnce."
    )
    retain: bool | None = Field(
        default=None, description="Whether the claim that is made outlives the TrainingJob. Default: true."
    )
    cache: SharedCache | None = Field(
        default=None,
        description="Volume for downloaded models and rows and for tokens, shared by every job that names it. Default: "
        "each pod downloads for itself.",
    )
