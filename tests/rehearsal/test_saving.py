# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import logging
import threading

from transformers import default_data_collator, modeling_utils

from hf_deepclean import FisherUnlearner
from tests.tokenizers import byte_tokenizer
from tests.unlearner.runs import config, splits, vit


def tokenizer_that(does):
    """A tokenizer that does something when it is saved, in the middle of a rehearsal."""
    tokenizer = byte_tokenizer()
    save_pretrained = tokenizer.save_pretrained

    def save(*args, **kwargs):
        does()
        return save_pretrained(*args, **kwargs)

    tokenizer.save_pretrained = save
    return tokenizer


def test_what_others_save_during_a_rehearsal_has_its_weights_and_nothing_stays_changed_after_two_at_once(tmp_path):
    save_file, level = modeling_utils.safe_save_file, logging.root.manager.disable
    second = threading.Thread(target=lambda: FisherUnlearner(vit(), config(tmp_path / "b"), **splits()))

    def meanwhile():
        vit().save_pretrained(tmp_path / "other")
        second.start()
        second.join(1)

    tokenizer = tokenizer_that(meanwhile)
    FisherUnlearner(vit(), config(tmp_path / "a"), default_data_collator, processing_class=tokenizer, **splits())
    second.join()
    assert (tmp_path / "other" / "model.safetensors").exists()
    assert modeling_utils.safe_save_file is save_file
    assert logging.root.manager.disable == level
