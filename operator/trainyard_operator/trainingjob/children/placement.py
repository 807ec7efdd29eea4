"""How the pods of a gang are spread, and which further devices they get."""

from __future__ import annotations

from trainyard_crds.constants import JOB_UID_LABEL
from trainyard_crds.trainingjob_resources import Resources
from trainyard_kube.paths import Object


def topology_spread(job: Object, resources: Resources) -> Object:
    """Return the preference of a gang's pods for different domains."""
    labels = {JOB_UID_LABEL: job["metadata"]["uid"]}
    constraints = [
        {
            **entry.model_dump(by_alias=True),
            "whenUnsatisfiable": "ScheduleAnyway",  # the queue does not choose nodes by it
            "labelSelector": {"matchLabels": labels},
        }
        for entry in resources.topology_spread or []
    ]
    return {"topologySpreadConstraints": constraints} if constraints else {}


def device_claims(resources: Resources) -> Object:
    """Return the claims of devices of a training pod."""
    claims = [entry.model_dump(by_alias=True, exclude_none=True) for entry in resources.claims or []]
    return {"resourceClaims": claims} if claims else {}
