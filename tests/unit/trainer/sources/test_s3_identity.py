"""Object storage with the identity of the pod instead of a Secret."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.unit.certificates import write_pair
from tests.unit.trainer.sources import identity_server, web_server
from tests.unit.trainer.sources.identity_server import ROLE, TOKEN
from tests.unit.trainer.sources.s3_server import Storage
from tests.unit.trainer.sources.web_server import Web
from trainyard_crds.runconfig import RunS3
from trainyard_trainer.errors import NotPermittedError
from trainyard_trainer.sources.remote_files import has_identity, open_bucket

ROUND_TRIP = """
import os, sys
from trainyard_crds.runconfig import RunS3
from trainyard_trainer.sources.remote_files import open_bucket
remote = open_bucket("models", RunS3(endpoint=sys.argv[1]), os.environ)
remote.write("identity/rows.txt", iter([b"rows"]), "0" * 64)
print(b"".join(remote.read(remote.look_up("identity/rows.txt"), 0, 4)).decode())
remote.abort_uploads("identity/rows.txt")
"""


class Identity(NamedTuple):
    """Variables that a webhook injects, by the kind of identity, and the bundle with the CA of the STS."""

    role: dict[str, str]
    agent: dict[str, str]
    ca_bundle: Path


@pytest.fixture
def identity(storage: Storage, tmp_path: Path) -> Iterator[Identity]:
    certificate = write_pair(tmp_path, "sts")
    token = tmp_path / "token"
    token.write_text(TOKEN)
    with identity_server.serve(storage.temporary, certificate) as (sts, agent):
        role = {"AWS_ROLE_ARN": ROLE, "AWS_WEB_IDENTITY_TOKEN_FILE": str(token), "AWS_ENDPOINT_URL_STS": sts.address}
        address = f"{agent.address}/credentials"
        pod = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": address, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(token)}
        yield Identity(role, pod, certificate[0])


def round_trip(storage: Storage, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Write and read an object in a process with these variables; the client reads its CAs from the process."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "SSL_"))}
    return subprocess.run(
        [sys.executable, "-c", ROUND_TRIP, storage.s3.endpoint or ""],
        env={**inherited, "PYTHONPATH": os.pathsep.join(sys.path), **environ},
        capture_output=True,
        text=True,
        check=False,
    )


def test_role_of_a_service_account_uses_a_private_bucket_and_trusts_the_ca_bundle(
    storage: Storage, identity: Identity
) -> None:
    done = round_trip(storage, {**identity.role, "SSL_CERT_FILE": str(identity.ca_bundle)})
    assert (done.returncode, done.stdout) == (0, "rows\n"), done.stderr


def test_pod_identity_uses_a_private_bucket(storage: Storage, identity: Identity) -> None:
    remote = open_bucket("models", storage.s3, identity.agent)
    remote.write("identity/pod.txt", iter([b"rows"]), "0" * 64)
    assert b"".join(remote.read(remote.look_up("identity/pod.txt"), 0, 4)) == b"rows"


def test_refused_identity_is_a_sentence_without_the_token(storage: Storage, identity: Identity, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("hunter2")
    environ = identity.agent | {"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(wrong)}
    with pytest.raises(NotPermittedError, match=r"not permit access to s3://models/identity/pod\.txt") as refused:
        open_bucket("models", storage.s3, environ).look_up("identity/pod.txt")
    assert "hunter2" not in str(refused.value)
    assert "a cloud identity that may use the bucket in spec.pod.serviceAccountName" in refused.value.advice


def test_secret_takes_precedence_over_the_identity(storage: Storage, tmp_path: Path) -> None:
    broken = {"AWS_ROLE_ARN": ROLE, "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "none")}
    open_bucket("models", storage.s3, broken | storage.environ).write("identity/keys.txt", iter([b"1"]), "0" * 64)


def test_requests_without_secret_and_identity_are_unsigned() -> None:
    with web_server.serve(Web({"/models/rows.txt": b"rows"})) as web:
        assert open_bucket("models", RunS3(endpoint=web.address), {}).look_up("rows.txt").bytes == 4
        assert web.tokens == {None}


@pytest.mark.parametrize("names", [("AWS_ROLE_ARN",), ("AWS_WEB_IDENTITY_TOKEN_FILE",), ("AWS_REGION",), ()])
def test_half_an_identity_is_none(names: tuple[str, ...]) -> None:
    assert not has_identity(dict.fromkeys(names, "x"))
