"""Arguments, error messages, settings."""

from pathlib import Path

import pytest

from cluster import cli, paths, settings
from cluster.errors import ClusterError
from cluster.settings import Settings


def test_paths_follow_the_environment() -> None:
    assert paths.cache_dir({"TRAINYARD_CACHE": "/c"}) == Path("/c")
    assert paths.cache_dir({"XDG_CACHE_HOME": "/x"}) == Path("/x/trainyard")
    assert paths.cache_dir({"HOME": "/h"}) == Path("/h/.cache/trainyard")
    assert paths.cluster_dir("a-1", {"TRAINYARD_STATE": "/s"}) == Path("/s/clusters/a-1")


@pytest.mark.parametrize("name", ["", "A", "../x", "-a", "a" * 41, "a.b", "a/b"])
def test_invalid_cluster_name_is_rejected(name: str) -> None:
    with pytest.raises(ClusterError, match="is not a cluster name"):
        paths.cluster_dir(name)


def test_errors_are_printed_with_a_remedy(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRAINYARD_STATE", str(tmp_path))
    assert cli.main(["kubeconfig", "--name", "missing"]) == 1
    assert "cluster: error: cluster 'missing' has no kubeconfig yet" in capsys.readouterr().err
    assert cli.main(["reboot", "--name", "missing"]) == 1
    assert "there is no cluster 'missing'" in capsys.readouterr().err
    assert cli.main(["up", "--kwok", "3"]) == 1
    assert "use it with --api-only" in capsys.readouterr().err
    assert cli.main(["up", "--name", "Bad"]) == 1
    assert "--name 'Bad' is not a cluster name" in capsys.readouterr().err


def test_negative_count_is_rejected(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["up", "--fake-gpus", "-1"])
    assert "--fake-gpus" in capsys.readouterr().err


def test_a_cluster_keeps_its_tier(tmp_path: Path) -> None:
    settings.save(tmp_path, Settings("api"))
    settings.require_tier(tmp_path, "api")
    with pytest.raises(ClusterError, match="exists as 'api', not as 'node'"):
        settings.require_tier(tmp_path, "node")


def test_settings_round_trip_and_damaged_file_means_no_cluster(tmp_path: Path) -> None:
    saved = settings.save(tmp_path, Settings("node", pods="10.214.0.0/16", fake_gpus=2))
    assert settings.load(tmp_path) == saved
    assert str(saved.gateway) == "10.214.0.1"
    (tmp_path / "cluster.json").write_text("{")
    assert settings.load(tmp_path) is None
