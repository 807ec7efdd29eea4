import kopf

from trainyard_kube.kopf_storage import NoDiffBase, NoProgress
from trainyard_operator.kube.watch import _settings

BODY = kopf.Body({"metadata": {"name": "tune", "annotations": {"a": "b"}}, "spec": {"task": "llm"}})


def test_nothing_of_an_object_is_copied_or_remembered() -> None:
    patch, diffs, progress = kopf.Patch(), NoDiffBase(), NoProgress()
    essence = diffs.build(body=BODY)
    diffs.store(body=BODY, patch=patch, essence=essence)
    progress.store(key="take", record={}, body=BODY, patch=patch)
    progress.purge(key="take", body=BODY, patch=patch)
    progress.touch(body=BODY, patch=patch, value="now")
    assert (essence, diffs.fetch(body=BODY), progress.fetch(key="take", body=BODY)) == ({}, None, None)
    assert progress.clear(essence=essence) is essence
    assert not patch


def test_the_watch_uses_them() -> None:
    persistence = _settings().persistence
    assert isinstance(persistence.diffbase_storage, NoDiffBase)
    assert isinstance(persistence.progress_storage, NoProgress)
