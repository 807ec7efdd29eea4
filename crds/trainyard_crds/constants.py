"""Names that several parts share: labels, paths, environment variables, URLs, audiences."""

from __future__ import annotations

from trainyard_crds.common import GROUP, VERSION

# Labels on every child object.
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
MANAGED_BY = "trainyard"
JOB_NAME_LABEL = f"{GROUP}/trainingjob"
JOB_UID_LABEL = f"{GROUP}/trainingjob-uid"
ROLE_LABEL = f"{GROUP}/role"
"""`train` for the training Job and its pods, `check` for the Job that reads result.json, `export` for the Job of
an export appended to spec.exports."""

# Annotation on the TrainingJob.
RUN_ANNOTATION = f"{GROUP}/run"
"""The run of the TrainingJob, by which one restored from a backup finds it: JSON with name, uid and spec digest."""

# Annotations on the child Job.
RUN_CONFIG_ANNOTATION = f"{GROUP}/run-config"
"""Name of the immutable ConfigMap that holds the RunConfig."""
ADMITTED_ANNOTATION = f"{GROUP}/admitted"
"""On a training Job: the time of its admission in microseconds, unique among all jobs."""
ENQUEUED_ANNOTATION = f"{GROUP}/enqueued"
"""On a training Job: its `status.queue.enqueuedAt`, in case the operator is killed before it writes the status."""

TRAINING_JOBS = f"/apis/{GROUP}/{VERSION}/{{namespace}}trainingjobs"
MODEL_DEPLOYMENTS = f"/apis/{GROUP}/{VERSION}/{{namespace}}modeldeployments"
"""URL paths of the kinds; `{namespace}` stands for `namespaces/NAME/`, or for nothing: those of all namespaces."""

FIELD_MANAGER = "trainyard"
CA_CONFIG_MAP = "trainyard-ca"
"""ConfigMap in each namespace with jobs; key `ca.crt` verifies the gateway's serving certificate."""
CA_KEY = "ca.crt"

TRAINER_CONTAINER = "trainer"

# Paths inside the trainer's pod.
CONFIG_DIRECTORY = "/etc/trainyard/config"
CONFIG_FILE = "run.json"
TOKEN_DIRECTORY = "/var/run/secrets/trainyard"  # noqa: S105 - a path
TOKEN_FILE = "token"  # noqa: S105 - a file name
CA_DIRECTORY = "/etc/trainyard/ca"
RUN_VOLUME = "/volumes/run"
CLAIMS_DIRECTORY = "/volumes/claims"
"""pvc://CLAIM/PATH is mounted read-only at CLAIMS_DIRECTORY/CLAIM."""
CACHE_VOLUME = "/volumes/cache"
"""Mount point of spec.storage.cache."""
CACHE_DIRECTORY = f"{CACHE_VOLUME}/trainyard-cache"
HUB_CACHE_ENV = "HF_HUB_CACHE"
HUB_CACHE_DIRECTORY = f"{CACHE_VOLUME}/huggingface/hub"
"""Default of the hub's own tools with HF_HOME=.../huggingface on that volume."""
SCRATCH_DIRECTORIES = {
    "HOME": "/home/trainyard",
    "HF_HOME": "/home/trainyard/huggingface",
    "TRITON_CACHE_DIR": "/home/trainyard/triton",
    "TORCHINDUCTOR_CACHE_DIR": "/home/trainyard/inductor",
    "TMPDIR": "/tmp",  # noqa: S108 - an emptyDir of the pod
}
TERMINATION_LOG = "/dev/termination-log"
TERMINATION_LIMIT = 4096
"""Bytes of a termination message that the kubelet keeps."""

POD_UID_ENV, POD_NAME_ENV, NODE_NAME_ENV = "POD_UID", "POD_NAME", "NODE_NAME"
GPU_VISIBILITY_ENV = "NVIDIA_VISIBLE_DEVICES"
"""`void` hides the GPUs of the node from a pod that requested none."""
CA_BUNDLE_ENV = "SSL_CERT_FILE"
"""The hub's client, the client of object storage and OpenSSL trust the CAs of this file only."""
CA_BUNDLE_DIRECTORY = "/etc/trainyard/ca-bundle"

# Intake of the gateway.
KUBEFLOW_URL_ENV = "KUBEFLOW_TRAINER_SERVER_URL"
KUBEFLOW_CA_ENV = "KUBEFLOW_TRAINER_SERVER_CA_CERT"
KUBEFLOW_TOKEN_ENV = "KUBEFLOW_TRAINER_SERVER_TOKEN"  # noqa: S105 - a variable's name; its value is a path
TERMINATION_LOG_ENV = "TRAINYARD_TERMINATION_LOG"

# Rendezvous of a gang; not set for a job on one node.
NODES_ENV = "NNODES"
NODE_RANK_ENV = "NODE_RANK"
"""Index of the pod, from 0; pod 0 reports, owns the run directory and ends the run."""
MASTER_ADDRESS_ENV = "MASTER_ADDR"
MASTER_PORT_ENV = "MASTER_PORT"
MASTER_PORT = 29400

HUB_TOKEN_ENV = "HF_TOKEN"  # noqa: S105 - a variable's name

# Credentials of object storage: keys of the Secret and environment variables of the trainer.
S3_CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
S3_SESSION_TOKEN = "AWS_SESSION_TOKEN"  # noqa: S105 - a variable's name

NAME_LIMIT = 48
"""Maximum length of a TrainingJob name: `<name>-<uid8>` and the suffix of a pod must fit a label value."""
MAX_ADAPTERS = 128
"""Most entries of spec.adapters of a ModelDeployment."""


def child_name(job_name: str, uid: str) -> str:
    """Return the name of the child Job, the generated claim and the run directory of a TrainingJob."""
    return f"{job_name}-{uid[:8]}"


def service_name(job_name: str, uid: str) -> str:
    """Return the name of the headless Service of a gang: a DNS-1035 label, so it starts with a letter."""
    return f"tj-{child_name(job_name, uid)}"


def master_address(namespace: str, job_name: str, uid: str) -> str:
    """Return the DNS name of pod 0 of a gang; pods of an Indexed Job have host names `<Job>-<index>`."""
    return f"{child_name(job_name, uid)}-0.{service_name(job_name, uid)}.{namespace}.svc"


def progress_audience(uid: str) -> str:
    """Return the audience of the token that a job's pods report with."""
    return f"{GROUP}/progress/{uid}"


def progress_path(namespace: str, name: str) -> str:
    """Return the path of the gateway's intake for a `Report`."""
    return f"/apis/trainyard.dev/v1alpha1/namespaces/{namespace}/trainingjobs/{name}/progress"


def kubeflow_path(namespace: str, name: str) -> str:
    """Return the path of the gateway's intake for a Kubeflow Trainer status body."""
    return f"/apis/trainer.kubeflow.org/v1alpha1/namespaces/{namespace}/trainjobs/{name}/status"


def run_directory(volume: str, job_name: str, uid: str) -> str:
    """Return the directory of a run below the mount point of its volume."""
    return f"{volume}/trainyard/{child_name(job_name, uid)}"
