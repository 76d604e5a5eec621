# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import copy

import torch
from transformers import BertForSequenceClassification

from hf_deepclean.reset.kinship import Kinship, find_kinship, is_saved_in
from tests import tiny
from tests.reset.models import saved, trained


def built(seed):
    torch.manual_seed(seed)
    return tiny.vit()


def test_kinship_is_told_by_the_weights():
    base = built(0)
    names = dict(base.named_parameters())
    assert find_kinship(trained(copy.deepcopy(base)), names, base) is Kinship.FINE_TUNED
    assert find_kinship(trained(copy.deepcopy(base), 0.3), names, base) is Kinship.SAME
    assert find_kinship(copy.deepcopy(base), names, base) is Kinship.SAME
    assert find_kinship(built(1), names, base) is Kinship.UNRELATED
    # In 16 bits a training leaves many weights as they are.
    half = copy.deepcopy(base).to(torch.bfloat16)
    assert find_kinship(trained(copy.deepcopy(half), 0.3), names, half) is Kinship.FINE_TUNED


def test_a_folder_holds_the_bits_of_its_own_model_alone(tmp_path):
    folder = saved(tiny.bert(), tmp_path / "a")
    model, changed = (BertForSequenceClassification.from_pretrained(folder) for _ in range(2))
    assert is_saved_in(model, folder)
    with torch.no_grad():
        changed.classifier.bias[3] += 1
    assert not is_saved_in(changed, folder)
    assert not is_saved_in(model.double(), folder)
    (folder / "model.safetensors").unlink()
    assert not is_saved_in(model.float(), folder)
