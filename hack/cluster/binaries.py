"""Builds the cluster's programs from the Go module proxy, each once, into the cache.

Every program is built separately and published by an atomic rename, so an interrupted run continues where it was. The
folder is named by the recipes and the Go version: a change of either causes a new build.
"""

import dataclasses
import fcntl
import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from cluster import golang
from cluster.errors import BuildError
from cluster.paths import cache_dir
from cluster.shell import locked, run, say

KUBERNETES = "1.35.4"
KUEUE = "v0.19.2"
_PAUSE = Path(__file__).with_name("pause.go")
_STAMP = "-X k8s.io/component-base/version.{}={} -X k8s.io/client-go/pkg/version.{}={}"
# The visibility server writes a certificate to a folder at the root of its image; here to its working directory.
_KUEUE = "sigs.k8s.io/kueue/pkg"
_KUEUE_FLAGS = f"-X {_KUEUE}/version.GitVersion={KUEUE} -X {_KUEUE}/visibility.certDir=visibility"


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How one program is built.

    Attributes:
        module: Go module that is required; programs of one module share a workspace.
        version: The module's version.
        package: Import path of the main package.
        seconds: About how long a cold build takes on two cores.
        staged: The module replaces its dependencies by `./staging/...`, as Kubernetes does.
        ldflags: Added to the linker's flags.
        source: Text of the single Go file `package` names, for a program of our own.
    """

    module: str
    version: str
    package: str
    seconds: int
    staged: bool = False
    ldflags: str = ""
    source: str = ""


def _kubernetes(command: str, seconds: int) -> Recipe:
    major, minor, _ = KUBERNETES.split(".")
    values = {"gitVersion": f"v{KUBERNETES}", "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    stamp = " ".join(_STAMP.format(key, value, key, value) for key, value in values.items())
    package = f"k8s.io/kubernetes/cmd/{command}"
    return Recipe("k8s.io/kubernetes", f"v{KUBERNETES}", package, seconds, staged=True, ldflags=stamp)


RECIPES: dict[str, Recipe] = {
    "etcd": Recipe("go.etcd.io/etcd/server/v3", "v3.6.16", "go.etcd.io/etcd/server/v3", 40),
    "kube-apiserver": _kubernetes("kube-apiserver", 230),
    "kubectl": _kubernetes("kubectl", 20),
    "kube-controller-manager": _kubernetes("kube-controller-manager", 30),
    "kube-scheduler": _kubernetes("kube-scheduler", 10),
    "helm": Recipe("helm.sh/helm/v3", "v3.22.0", "helm.sh/helm/v3/cmd/helm", 50),
    "kwok": Recipe("sigs.k8s.io/kwok", "v0.8.0", "sigs.k8s.io/kwok/cmd/kwok", 70),
    "kueue": Recipe("sigs.k8s.io/kueue", KUEUE, "sigs.k8s.io/kueue/cmd/kueue", 240, ldflags=_KUEUE_FLAGS),
    "kubelet": _kubernetes("kubelet", 30),
    "kube-proxy": _kubernetes("kube-proxy", 10),
    "coredns": Recipe("github.com/coredns/coredns", "v1.15.0", "github.com/coredns/coredns", 120),
    "registry": Recipe(
        "github.com/distribution/distribution/v3", "v3.1.2", "github.com/distribution/distribution/v3/cmd/registry", 70
    ),
    "pause": Recipe("pause", "1", "pause.go", 5, source=_PAUSE.read_text()),
    "kind": Recipe("sigs.k8s.io/kind", "v0.33.0", "sigs.k8s.io/kind", 10),
}
API = ("etcd", "kube-apiserver", "kubectl", "kube-controller-manager", "kube-scheduler")
NODE = (*API, "kubelet", "kube-proxy", "coredns", "registry", "pause")


def key(go_version: str, recipes: dict[str, Recipe] = RECIPES) -> str:
    """Return the name of the binaries' folder: 12 hexadecimal digits of all recipes and the Go version."""
    facts = {name: dataclasses.asdict(recipe) | {"seconds": 0} for name, recipe in recipes.items()}
    return hashlib.sha256(json.dumps([go_version, facts], sort_keys=True).encode()).hexdigest()[:12]


def bin_dir() -> Path:
    """Return the folder of the built programs for this machine's Go."""
    return cache_dir() / "bin" / key(golang.version())


def ensure(names: Iterable[str]) -> Path:
    """Build the programs that are not there yet and return their folder.

    Once all programs of the tests are there, Go's build cache is removed.

    Raises:
        BuildError: a build failed.
        ToolError: there is no Go toolchain and none could be installed.
    """
    folder = bin_dir()
    missing = [name for name in names if not (folder / name).exists()]
    if missing:
        seconds = sum(RECIPES[name].seconds for name in missing)
        say(f"building {', '.join(missing)} from source, once: about {max(1, seconds // 60)} min on two cores")
    for name in missing:
        _build(name, folder / name)
    if missing and all((folder / name).exists() for name in (*NODE, "helm", "kwok")):
        _forget_build_cache()
    return folder


def _forget_build_cache() -> None:
    """Remove what only another build would use, 6 GB, unless a build is running."""
    with (cache_dir() / "go.lock").open("w") as builds:
        try:
            fcntl.flock(builds, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        shutil.rmtree(_go_cache(), ignore_errors=True)


def _go_cache() -> Path:
    return cache_dir() / "go/build"


def source(module: str, version: str) -> Path:
    """Return the folder of a Go module's source, fetched into the cache where it is not there yet.

    Raises:
        BuildError: the module proxy does not have it or did not answer.
        ToolError: there is no Go toolchain and none could be installed.
    """
    go = str(golang.executable())
    found = json.loads(_go(go, cache_dir() / "src", "mod", "download", "-json", f"{module}@{version}"))
    return Path(found["Dir"])


def _build(name: str, target: Path) -> None:
    recipe = RECIPES[name]
    workspace = cache_dir() / "src" / _slug(recipe)
    with locked(workspace.with_suffix(".lock"), f"another run is building {recipe.module}; waiting for it"):
        if target.exists():
            return
        go = str(golang.executable())
        say(f"  {name} {recipe.version} (about {recipe.seconds} s)")
        _prepare(go, recipe, workspace)
        target.parent.mkdir(parents=True, exist_ok=True)
        for leftover in target.parent.glob(f".{name}.*"):
            shutil.rmtree(leftover)  # left by a killed build; no other build runs while this one holds the lock
        with (
            (cache_dir() / "go.lock").open("w") as builds,
            tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{name}.") as part,
        ):
            fcntl.flock(builds, fcntl.LOCK_SH)
            out = Path(part) / name
            flags = ["-trimpath", f"-ldflags=-s -w {recipe.ldflags}".rstrip()]
            _go(go, workspace, "build", *flags, "-o", str(out), str(_PAUSE) if recipe.source else recipe.package)
            out.replace(target)


def _prepare(go: str, recipe: Recipe, workspace: Path) -> None:
    if recipe.source or (workspace / ".tidy").exists():
        return
    workspace.mkdir(parents=True, exist_ok=True)
    upstream = json.loads(_go(go, workspace, "mod", "download", "-json", f"{recipe.module}@{recipe.version}"))
    (workspace / "go.mod").write_text(go_mod(recipe, Path(upstream["GoMod"]).read_text()))
    # The checksum database lacks some prereleases; the module's own go.sum, itself verified, has them.
    sums = Path(upstream["Dir"]) / "go.sum"
    (workspace / "go.sum").write_text(sums.read_text() if sums.exists() else "")
    packages = sorted(other.package for other in RECIPES.values() if other.module == recipe.module)
    (workspace / "tools.go").write_text(tools_go(packages))
    _go(go, workspace, "mod", "tidy", "-e")
    (workspace / ".tidy").touch()


def go_mod(recipe: Recipe, upstream: str) -> str:
    """Return a go.mod that requires the recipe's module.

    Args:
        recipe: What is built.
        upstream: The module's own go.mod. A module that requires it does not inherit its replacements: `./staging`
            ones become the published modules of the same release, others are copied.
    """
    go_line = re.search(r"^go (\S+)$", upstream, re.MULTILINE)
    lines = ["module trainyard.dev/hack/tools", "", f"go {go_line[1] if go_line else '1.25'}", ""]
    lines += [f"require {recipe.module} {recipe.version}", ""]
    staging = re.findall(r"^\s*(?:replace\s+)?(\S+) => \./staging/", upstream, re.MULTILINE) if recipe.staged else []
    published = "v0." + recipe.version.removeprefix("v").split(".", 1)[1]
    lines += [f"replace {module} => {module} {published}" for module in staging]
    pinned = re.findall(r"^\s*(?:replace\s+)?(\S+(?: v\S+)?) => ([^.\s]\S* v\S+)", upstream, re.MULTILINE)
    lines += [f"replace {old} => {new}" for old, new in pinned]
    return "\n".join(lines) + "\n"


def tools_go(packages: Iterable[str]) -> str:
    """Return a Go file that makes `go mod tidy` keep what the packages need."""
    imports = "".join(f'\t_ "{package}"\n' for package in packages)
    return f"//go:build tools\n\npackage tools\n\nimport (\n{imports})\n"


def _go(go: str, cwd: Path, *args: str) -> str:
    # Separate caches, so that deleting ours removes the whole build; writable, so that they can be deleted.
    caches = {"GOMODCACHE": str(cache_dir() / "go/mod"), "GOCACHE": str(_go_cache())}
    env = {"CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false -mod=mod -modcacherw", "GOWORK": "off", **caches}
    cwd.mkdir(parents=True, exist_ok=True)
    return run(["nice", go, *args], env=env, cwd=cwd, error=BuildError)


def _slug(recipe: Recipe) -> str:
    name = recipe.module.replace("/", "-")
    packages = sorted(other.package for other in RECIPES.values() if other.module == recipe.module)
    facts = json.dumps([recipe.version, packages])
    return f"{name}-{hashlib.sha256(facts.encode()).hexdigest()[:8]}"
