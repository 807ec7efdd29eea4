"""The two ConfigMaps of the pods: the immutable ServingConfig, and the AdapterSet that changes without a restart."""

from __future__ import annotations

import hashlib
from pathlib import PurePosixPath

from trainyard_crds.runconfig import RunS3
from trainyard_crds.serving import (
    ADAPTER_SET_FILE,
    SERVING_CONFIG_FILE,
    AdapterSet,
    ServingConfig,
)
from trainyard_kube.paths import Object
from trainyard_operator.modeldeployment.children.metadata import child, name_of
from trainyard_operator.modeldeployment.resolve import Resolved
from trainyard_operator.modeldeployment.spec import Spec

_FILE = "file://"


def serving_config(obj: Object, spec: Spec, resolved: Resolved, max_rank: int) -> ServingConfig:
    """Return what a replica needs to know beside the adapters."""
    source = resolved.model.source
    place = {"model_path": source.removeprefix(_FILE)} if source.startswith(_FILE) else {}
    s3 = None if spec.s3 is None else RunS3(endpoint=spec.s3.endpoint, region=spec.s3.region)
    return ServingConfig(
        namespace=obj["metadata"]["namespace"],
        name=obj["metadata"]["name"],
        model=resolved.model,
        base_name=resolved.base_name,
        max_adapter_rank=max_rank,
        drain_seconds=spec.drain_seconds,
        s3=s3,
        **place,
    )


def serving_config_map(obj: Object, config: ServingConfig) -> Object:
    """Return the immutable ConfigMap; another content has another name."""
    text = config.model_dump_json(by_alias=True, exclude_none=True)
    name = f"{name_of(obj)}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return child(obj, "ConfigMap", "v1", name, immutable=True, data={PurePosixPath(SERVING_CONFIG_FILE).name: text})


def adapter_set(resolved: Resolved) -> AdapterSet:
    """Return the adapters that can be served; the others have a fault."""
    return AdapterSet.of([adapter.desired for adapter in resolved.adapters if adapter.desired is not None])


def adapter_set_map(obj: Object, adapters: AdapterSet) -> Object:
    """Return the ConfigMap with the adapters."""
    text = adapters.model_dump_json(by_alias=True, exclude_none=True)
    return child(obj, "ConfigMap", "v1", adapter_set_name(obj), data={PurePosixPath(ADAPTER_SET_FILE).name: text})


def adapter_set_name(obj: Object) -> str:
    """Return the name of the ConfigMap with the adapters."""
    return f"{name_of(obj)}-adapters"
