"""`python -m demo up|clean`: what `make demo` and `make clean-demo` run.

Every step reuses an existing result, so an interrupted demo continues where it was.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from demo.steps import Steps

NAMESPACE = "trainyard-demo"


def main(argv: Sequence[str]) -> int:
    """Run the command; 0 when the model learned, 1 with an error message otherwise."""
    arguments = _parser().parse_args(argv)
    if os.geteuid() != 0:
        print("The demo starts a Kubernetes node on this machine, which needs root: run it with sudo.")
        return 1
    try:
        return clean(keep_cache=arguments.keep_cache) if arguments.command == "clean" else up(arguments.model)
    except subprocess.CalledProcessError:
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. The same command continues where it was.")
        return 130
    except (RuntimeError, LookupError, TimeoutError) as error:
        print(f"\nThe demo stopped: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    start = commands.add_parser("up", help="from nothing to a fine-tuned model")
    start.add_argument("--model", help="base model instead of the tiny one, for example hf://Qwen/Qwen3-0.6B")
    end = commands.add_parser("clean", help="remove every process, mount, bridge and file of the demo")
    end.add_argument("--keep-cache", action="store_true", help="keep what was built, so that the next demo is fast")
    return parser


def up(model: str | None) -> int:
    """Run all steps."""
    # `clean` runs without the Python environment, so third-party imports are local.
    from demo import inputs, install, serve, show, volume
    from demo.compare import compare
    from demo.follow import follow
    from demo.kubectl import Kubectl, namespace
    from demo.machine import cluster, load_images

    steps = Steps(7 if model else 9)
    with steps.step("a small model, and real questions and answers about Python's library (3 min once, then reused)"):
        directory = inputs.ensure()
    with steps.step("a one-node Kubernetes cluster (up to 12 min once to build it, then about 20 s)"):
        kubeconfig = cluster("up")[-1]
        programs = Path(cluster("build", "node")[-1])
    kubectl = Kubectl(programs / "kubectl", Path(kubeconfig), NAMESPACE)
    with steps.step("the images of operator, trainer and serving engine (up to 16 min once, then seconds)"):
        images = load_images()
    with steps.step("Trainyard, installed with Helm (about 30 s)"):
        install.install(kubectl, programs / "helm", images)
    with steps.step("the model and the rows, copied into the claim `inputs` (about 20 s)"):
        kubectl.apply(namespace(NAMESPACE))
        volume.fill(kubectl, images["trainer"], "inputs", directory)
    with steps.step("kubectl apply -f examples/python-docs-qlora.yaml (1 to 3 min of training on one core)"):
        name = show.apply_example(kubectl, model)
        job = follow(kubectl, name, 3600, print)
        show.show_result(kubectl, job)
    with steps.step("before and after, on held-out questions (about 1 min)"):
        passed = show.show_comparison(compare(kubectl, images["trainer"], name))
    if not model:
        with steps.step("kubectl apply -f examples/serve-python-docs.yaml (vLLM on one core starts in about 1 min)"):
            deployment = serve.deploy(kubectl)
            print(kubectl.run("get", "modeldeployments").rstrip())
        with steps.step("the same questions over HTTP: the base model and the adapter that was just trained"):
            answers = serve.ask_both(serve.address(kubectl, deployment), name, directory / "heldout.jsonl")
            passed = serve.show(answers) and passed
    print(f"\nThe demo took {steps.elapsed}. Look around:")
    print(f"  export KUBECONFIG={kubeconfig} PATH={programs}:$PATH")
    print(f"  kubectl -n {NAMESPACE} get tj,md; kubectl -n {NAMESPACE} get tj {name} -o yaml")
    print("  make clean-demo    # when you are done; with KEEP_CACHE=1 the programs and images that took so long stay")
    return 0 if passed else 1


def clean(*, keep_cache: bool) -> int:
    """Stop the node and delete its state and, unless `keep_cache`, everything that was built."""
    from cluster.paths import cache_dir, state_dir
    from demo.machine import cluster

    cluster("down", "--purge")
    if keep_cache:
        print(f"Built programs, images and the Python environment stay in {cache_dir()}; the next demo reuses them.")
        return 0
    for directory in (cache_dir(), state_dir()):
        if directory.exists():
            print(f"deleting {directory}")
            shutil.rmtree(directory)
    print("Nothing of the demo is left. Debian packages it installed (containerd, buildah and others) are kept.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
