import kopf

from trainyard_kube.kopf_storage import NoDiffBase, NoProgress

BODY = kopf.Body({"metadata": {"name": "tune", "annotations": {"a": "b"}}, "spec": {"task": "llm"}})


def test_storages_copy_and_keep_nothing() -> None:
    patch, diffs, progress = kopf.Patch(), NoDiffBase(), NoProgress()
    essence = diffs.build(body=BODY)
    diffs.store(body=BODY, patch=patch, essence=essence)
    progress.store(key="take", record={}, body=BODY, patch=patch)
    progress.purge(key="take", body=BODY, patch=patch)
    progress.touch(body=BODY, patch=patch, value="now")
    assert (essence, diffs.fetch(body=BODY), progress.fetch(key="take", body=BODY)) == ({}, None, None)
    assert progress.clear(essence=essence) is essence
    assert not patch
