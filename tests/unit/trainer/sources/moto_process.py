"""moto's S3 server, run by the interpreter of moto's environment.

Prints one JSON line with its address, and the credentials of a user and of a role with all S3 permissions. Then it
enforces signatures and permissions. Ends when its standard input is closed.
"""

import json
import sys
from typing import Any

import boto3  # type: ignore[import-not-found]
from moto import settings  # type: ignore[import-not-found]
from moto.server import ThreadedMotoServer  # type: ignore[import-not-found]


def main() -> None:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    options = {"endpoint_url": endpoint, "region_name": "us-east-1", "aws_access_key_id": "setup"}
    options["aws_secret_access_key"] = "setup"
    boto3.client("s3", **options).create_bucket(Bucket="models")
    iam = boto3.client("iam", **options)
    iam.create_user(UserName="trainer")
    allowed = [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]
    policy = json.dumps({"Version": "2012-10-17", "Statement": allowed})
    iam.put_user_policy(UserName="trainer", PolicyName="s3", PolicyDocument=policy)
    key = iam.create_access_key(UserName="trainer")["AccessKey"]
    temporary = temporary_credentials(iam, boto3.client("sts", **options), policy)
    settings.INITIAL_NO_AUTH_ACTION_COUNT = 0.0
    keys = {"id": key["AccessKeyId"], "secret": key["SecretAccessKey"]}
    print(json.dumps({"endpoint": endpoint, "temporary": temporary, **keys}), flush=True)  # noqa: T201
    sys.stdin.read()


def temporary_credentials(iam: Any, sts: Any, policy: str) -> dict[str, str]:
    """Return temporary credentials of a role with all S3 permissions."""
    role = iam.create_role(RoleName="trainer", AssumeRolePolicyDocument="{}")["Role"]
    iam.put_role_policy(RoleName="trainer", PolicyName="s3", PolicyDocument=policy)
    made = sts.assume_role(RoleArn=role["Arn"], RoleSessionName="trainer")["Credentials"]
    return {name: made[name] for name in ("AccessKeyId", "SecretAccessKey", "SessionToken")}


if __name__ == "__main__":
    main()
