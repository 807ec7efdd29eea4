"""moto's S3 server, run by the interpreter of moto's environment.

Prints one JSON line with its address and the credentials of a user with all S3 permissions, then enforces signatures
and permissions. Ends when its standard input is closed.
"""

import json
import sys

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
    settings.INITIAL_NO_AUTH_ACTION_COUNT = 0.0
    print(json.dumps({"endpoint": endpoint, "id": key["AccessKeyId"], "secret": key["SecretAccessKey"]}), flush=True)  # noqa: T201
    sys.stdin.read()


if __name__ == "__main__":
    main()
