"""Rules over several blocks of a ModelDeployment's spec, and over its name."""

from __future__ import annotations

from typing import Any

from trainyard_crds.common import Rule
from trainyard_crds.constants import HUB_TOKEN_ENV, NAME_LIMIT, S3_CREDENTIALS, S3_SESSION_TOKEN
from trainyard_crds.serving import BASE_NAME


def _uses(scheme: str) -> str:
    """Return the CEL expression: the model or an adapter may come from a source with this scheme.

    A TrainingJob counts: its base model may have any source, which the API server does not read.
    """
    return (
        f"has(self.model.from) || (has(self.model.source) && self.model.source.startsWith('{scheme}')) || "
        f"(has(self.adapters) && self.adapters.exists(a, has(a.source) && a.source.startsWith('{scheme}')))"
    )


SPEC_RULES: tuple[Rule[Any], ...] = (
    Rule(
        f"!has(self.s3) || {_uses('s3://')}",
        "spec.s3 has no effect without an s3:// source; remove it",
    ),
    Rule(
        f"!has(self.model.credentialsSecret) || {_uses('hf://')}",
        "spec.model.credentialsSecret is only used for hf:// models and adapters; remove it",
    ),
    Rule(
        "!has(self.adapters) || self.adapters.all(a, !has(a.source) || !a.source.startsWith('pvc://') || "
        "(has(self.volumes) && self.volumes.exists(v, a.source.startsWith('pvc://' + v.claimName + '/'))) || "
        "(has(self.model.source) && self.model.source.startsWith('pvc://' + a.source.split('/')[2] + '/')))",
        "spec.adapters[].source: replicas mount the claim of spec.model.source and the claims of spec.volumes, and a "
        "pvc:// adapter is on another one; add it to spec.volumes as {claimName: ...}",
    ),
    Rule(
        "!has(self.scaleToZero) || self.replicas <= 1",
        "spec.scaleToZero starts one replica for the first request; with it spec.replicas must be 0 or 1",
    ),
    Rule(
        "!has(self.adapters) || !has(self.model.servedName) || self.adapters.all(a, a.name != self.model.servedName)",
        "spec.adapters[].name is the name of the model, spec.model.servedName; use another name",
    ),
    Rule(
        "!has(self.pod) || !has(self.pod.env) || !has(self.model.credentialsSecret) || "
        f"!self.pod.env.exists(e, e.name == '{HUB_TOKEN_ENV}')",
        f"spec.pod.env: {HUB_TOKEN_ENV} is read from spec.model.credentialsSecret; remove one of them",
    ),
    Rule(
        "!has(self.pod) || !has(self.pod.env) || !has(self.s3) || !has(self.s3.credentialsSecret) || "
        f"!self.pod.env.exists(e, e.name in {[*S3_CREDENTIALS, S3_SESSION_TOKEN]})",
        "spec.pod.env: the AWS credentials are read from spec.s3.credentialsSecret; remove one of them",
    ),
)

NAME_RULES: tuple[Rule[Any], ...] = (
    Rule(
        f"self.metadata.name.size() <= {NAME_LIMIT} && self.metadata.name.matches('^[a-z][-a-z0-9]*$')",
        f"metadata.name must begin with a letter, and have at most {NAME_LIMIT} characters and no '.': it is also the "
        "name of the Service",
    ),
    Rule(
        f"self.metadata.name != '{BASE_NAME}' || has(self.spec.model.servedName)",
        f"metadata.name: {BASE_NAME} is the name of the base model in requests; use another name, or set "
        "spec.model.servedName",
    ),
    Rule(
        "!has(self.spec.adapters) || has(self.spec.model.servedName) || "
        "self.spec.adapters.all(a, a.name != self.metadata.name)",
        "spec.adapters[].name is the name of the model, which is that of the ModelDeployment; use another "
        "name, or set spec.model.servedName",
        field_path=".spec.adapters",
    ),
)
