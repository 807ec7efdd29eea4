"""The most used model families: their tokenizers, rebuilt small, and their chat templates.

A family is a module with its `FAMILY`; the chat template is `templates/<name>.jinja`.
"""

from tests.unit.trainer.families import (
    bloom,
    command_r,
    deepseek_v2,
    deepseek_v3,
    falcon,
    gemma,
    gemma_2,
    gemma_3,
    glm_4,
    gpt_2,
    gpt_neox,
    gpt_oss,
    granite,
    internlm_2,
    llama_2,
    llama_3,
    minicpm,
    mistral,
    mistral_nemo,
    mistral_v3,
    mixtral,
    olmo,
    olmo_2,
    phi_3,
    phi_4,
    qwen_2,
    qwen_3,
    smollm,
    stablelm_2,
    yi,
)
from tests.unit.trainer.families.building import Family

FAMILIES: dict[str, Family] = {
    module.FAMILY.name: module.FAMILY
    for module in (
        bloom,
        command_r,
        deepseek_v2,
        deepseek_v3,
        falcon,
        gemma,
        gemma_2,
        gemma_3,
        glm_4,
        gpt_2,
        gpt_neox,
        gpt_oss,
        granite,
        internlm_2,
        llama_2,
        llama_3,
        minicpm,
        mistral,
        mistral_nemo,
        mistral_v3,
        mixtral,
        olmo,
        olmo_2,
        phi_3,
        phi_4,
        qwen_2,
        qwen_3,
        smollm,
        stablelm_2,
        yi,
    )
}
