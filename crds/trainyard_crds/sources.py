"""Sources and destinations: their forms and rules, and object storage."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from trainyard_crds.common import DnsName, Rule, SpecModel, rules

_HF_MODEL = r"hf://[A-Za-z0-9][-\w.]*/[A-Za-z0-9][-\w.]*"
_HF_FILE = r"hf://[A-Za-z0-9][-\w.]*/[A-Za-z0-9][-\w.]*/[-\w./]+"
_PVC = r"pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?/(?s:.+)"
_S3 = r"s3://[a-z0-9][-a-z0-9.]{1,61}[a-z0-9]/[^?#]+"
_HTTPS = r"https://[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?(:[0-9]{1,5})?/[^?#]+"
_MAY_IDENTIFY = (
    r"({0}.matches(r'^([A-Za-z][A-Za-z0-9+.-]*://)?[^/]*@') || "
    r"(!{0}.startsWith('pvc://') && {0}.contains('://') && {0}.contains('?')))"
)
"""CEL: {0} contains a user name or password, or a query such as ?token=... The rule is on the
object around the field: the error of a rule on the field repeats the value, and the API server's audit log keeps it."""
_ESCAPES = r"(^|/)[.][.]?(/|$)|^(hf|pvc|s3|https)://.*//|[\x00-\x1f\x7f]"
_NO_ESCAPE: Rule[Any] = Rule(
    f"!self.matches(r'{_ESCAPES}') || {_MAY_IDENTIFY.format('self')}",
    "must not contain '.', '..', '//' or control characters in its path; "
    "write the path from the root of the claim or bucket, for example pvc://claim/folder/file",
)


def no_secret(field: str, write: str, name: str = "source") -> Rule[Any]:
    """Return a rule for the object with a source or destination: no user name, password or token.

    Args:
        field: The field's path, for the message.
        write: What to write instead.
        name: Name of the field in the object.
    """
    return Rule(
        f"!has(self.{name}) || !{_MAY_IDENTIFY.format(f'self.{name}')}",
        f"{field} must not hold a user name, password or token (text before '@' or behind '?'), which every reader "
        f"of the object can see; {write}",
        field_path=f".{name}",
    )


def _well_formed(pattern: str, message: str) -> dict[str, Any]:
    formed: Rule[Any] = Rule(f"self.matches(r'^({pattern})$') || {_MAY_IDENTIFY.format('self')}", message)
    return rules(formed, _NO_ESCAPE)


def model_source(field: str) -> dict[str, Any]:
    """Return the rules of a field with a model directory."""
    return _well_formed(
        f"{_HF_MODEL}|{_PVC}|{_S3}",
        f"{field} must be hf://org/name, pvc://claim/path or s3://bucket/path, for example hf://Qwen/Qwen3-0.6B; "
        f"a revision goes into {field.removesuffix('source')}revision, files from elsewhere onto a claim",
    )


def dataset_source(field: str) -> dict[str, Any]:
    """Return the rules of a field with a file of rows."""
    return _well_formed(
        f"{_HF_FILE}|{_PVC}|{_S3}|{_HTTPS}",
        f"{field} must be pvc://claim/file.jsonl, hf://org/name/file.jsonl, s3://bucket/file.jsonl or "
        "https://host/file.jsonl; files from elsewhere go onto a claim",
    )


def s3_destination(field: str) -> dict[str, Any]:
    """Return the rules of a field with a destination."""
    return _well_formed(_S3, f"{field} must be s3://bucket/folder, for example s3://models/support-bot")


Sha256 = Field(
    default=None,
    min_length=64,
    max_length=64,
    description="SHA-256 of the file (64 lower-case hex digits); a mismatch is refused. For s3:// and https:// only.",
    json_schema_extra=rules(
        Rule("self.matches(r'^[0-9a-f]{64}$')", "must be 64 lower-case hex digits, as sha256sum prints them")
    ),
)
"""Field with the digest of a downloaded file."""


def sha256_of_downloads(field: str) -> Rule[Any]:
    """Return a rule for the object with `source` and `sha256`."""
    return Rule(
        "!has(self.sha256) || (has(self.source) && (self.source.startsWith('s3://') || "
        "self.source.startsWith('https://')))",
        f"{field}.sha256 is only used for s3:// and https:// sources; remove it",
    )


DEFAULT_REGION = "us-east-1"


class S3Secret(SpecModel):
    """A Secret with credentials for object storage."""

    name: DnsName = Field(
        description=(
            "Name of a Secret in this namespace with the keys AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and "
            "AWS_SESSION_TOKEN if the credentials have one."
        )
    )


class S3(SpecModel):
    """The object storage of s3:// sources and destinations."""

    endpoint: str | None = Field(
        default=None,
        min_length=8,
        max_length=253,
        description="URL of the service, for example https://minio.storage:9000. Default: the endpoint of AWS.",
        json_schema_extra=rules(
            Rule(
                r"self.matches(r'^https?://[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?(:[0-9]{1,5})?$')",
                "spec.s3.endpoint must be http:// or https://, a host and an optional port, for example "
                "https://minio.storage:9000; the bucket goes into the source",
            )
        ),
    )
    region: str = Field(
        default=DEFAULT_REGION,
        min_length=1,
        max_length=64,
        description="Region of the buckets; most services other than AWS ignore it.",
    )
    credentials_secret: S3Secret | None = Field(
        default=None,
        description="Credentials. Default: the cloud identity of the pod's ServiceAccount, see "
        "spec.pod.serviceAccountName; else none, for public buckets.",
    )
