"""Parts of spec.resources beside GPUs, CPU and memory: node affinity, spread, other resources, DRA claims."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from trainyard_crds.common import DnsName, Rule, SpecModel, rules

_LABEL_KEY = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
LabelKey = Annotated[
    str,
    Field(
        min_length=1,
        max_length=317,
        json_schema_extra=rules(
            Rule(
                f"self.matches(r'{_LABEL_KEY}')", "must be the key of a label, for example topology.kubernetes.io/zone"
            )
        ),
    ),
]


class NodeRequirement(SpecModel):
    """A requirement on a label of the node."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "self.operator in ['In', 'NotIn'] == has(self.values)",
                "spec.resources.nodeAffinity[]: In and NotIn need values, Exists and DoesNotExist have none",
            )
        )
    )

    key: LabelKey = Field(description="Key of the label.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = Field(
        description="In: the label has one of the values. NotIn: it has none of them, or the node has no such label."
    )
    values: list[Annotated[str, Field(max_length=63)]] | None = Field(
        default=None,
        min_length=1,
        max_length=16,
        description="Values of In and NotIn. Default: none.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )


class TopologySpread(SpecModel):
    """A preference for pods in different domains, for example zones or racks."""

    topology_key: LabelKey = Field(description="Label of the nodes whose values are the domains.")
    max_skew: int = Field(
        default=1, ge=1, le=64, description="Greatest difference between the number of pods of two domains."
    )


class OtherResource(SpecModel):
    """A resource of each training pod, request and limit."""

    name: str = Field(
        min_length=3,
        max_length=253,
        description="Name: an extended resource with its domain, for example rdma/hca, or hugepages-2Mi.",
        json_schema_extra=rules(
            Rule(
                r"self.matches(r'^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-\w.]*[A-Za-z0-9])?"
                r"|hugepages-[1-9][0-9]*[KMG]i)$')",
                "must be a resource name with a domain, for example rdma/hca, or hugepages-2Mi; cpu, memory and "
                "ephemeralStorage are fields of spec.resources",
            ),
            Rule(
                r"!self.matches(r'(?i)gpu|/mig-')",
                "must not be a GPU: the queue counts GPUs by spec.resources.gpus and gpuResource; use these",
            ),
        ),
    )
    quantity: str = Field(
        min_length=1,
        max_length=16,
        description="Number of units of each pod; for hugepages a size, for example 4Gi.",
        json_schema_extra=rules(
            Rule(
                r"self.matches(r'^[1-9][0-9]*([KMGT]i)?$')",
                "must be a whole number above 0, for hugepages with a unit, for example 4Gi",
            )
        ),
    )


class DeviceClaim(SpecModel):
    """A claim of devices (dynamic resource allocation)."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "has(self.resourceClaimName) != has(self.resourceClaimTemplateName)",
                "spec.resources.claims[] needs either resourceClaimName or resourceClaimTemplateName",
            )
        )
    )

    name: str = Field(
        min_length=1,
        max_length=63,
        description="Name of the claim in the pod.",
        json_schema_extra=rules(
            Rule(
                "self.matches(r'^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
                "must be lower-case letters, digits and '-', with a letter or digit first and last",
            )
        ),
    )
    resource_claim_name: DnsName | None = Field(
        default=None, description="An existing ResourceClaim, shared by the pods. Default: none."
    )
    resource_claim_template_name: DnsName | None = Field(
        default=None, description="A ResourceClaimTemplate: each pod gets a claim. Default: none."
    )
