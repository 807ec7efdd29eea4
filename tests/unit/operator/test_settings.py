"""What the environment of the operator configures."""

import pytest

from trainyard_operator.errors import SettingsError
from trainyard_operator.settings import from_environment

REQUIRED = {"TRAINYARD_NAMESPACE": "trainyard", "TRAINYARD_TRAINER_IMAGE": "trainer:1"}


def test_variables_of_training_pods_come_as_one_json_object() -> None:
    found = from_environment({**REQUIRED, "TRAINYARD_TRAINING_ENV": '{"NCCL_DEBUG": "INFO"}'}, "host")
    assert found.render.environment == {"NCCL_DEBUG": "INFO"}
    assert from_environment(REQUIRED, "host").render.environment == {}


@pytest.mark.parametrize("text", ["NCCL_DEBUG=INFO", "[]", '{"A": 1}'])
def test_variables_that_are_no_object_of_texts_are_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="set a JSON object of texts"):
        from_environment({**REQUIRED, "TRAINYARD_TRAINING_ENV": text}, "host")
