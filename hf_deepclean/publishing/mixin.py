# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The methods of an unlearner that publish its result."""

import os
from typing import Any

from huggingface_hub import HfApi

from ..runtime.processes import on_main_process
from .contents.load_check import ModelInMemory
from .folder import Publication, save_published, write_card
from .leaks import Needles, needles_of_dataset, needles_of_machine
from .push import PushResult, push_folder_to_hub


class PublishingMixin:
    """
    Publishes the result of a finished run. Everything is searched for traces of the forget data before it leaves the
    machine.

    The class needs the attributes `args`, `model`, `is_sharded`, `batch_source`, `forget_dataset`, `retain_dataset`,
    `requests` and `processing_class`.
    """

    args: Any
    model: Any
    is_sharded: bool
    batch_source: Any
    forget_dataset: Any
    retain_dataset: Any
    requests: Any
    processing_class: Any

    def push_to_hub(  # type: ignore[override]
        self,
        repo_id: str,
        *,
        private: bool = True,
        exist_ok: bool = False,
        create_pr: bool = False,
        revision: str | None = None,
        commit_message: str = "Add the cleaned model",
        gated: str | None = None,
        needles: Needles | None = None,
        token: str | bool | None = None,
        api: HfApi | None = None,
        **publication: Any,
    ) -> PushResult:
        """
        Publishes the cleaned model that [`~FisherUnlearner.unlearn`] has written: weights, configuration, tokenizer or
        processor, card, pictures and the public form of the report, in one commit.

        Before the first request every byte is searched for traces of the forget data and of this machine, and the
        files are loaded: they must answer as the model in memory on a batch of retain data. That takes the memory of
        a second model; with less, only the names and shapes of the weights are checked, and a warning says so.

        Args:
            repo_id (`str`):
                The repository, such as `"me/clean-model"`.
            private, exist_ok, create_pr, revision, commit_message, gated, token, api:
                As for [`push_folder_to_hub`]. By default the push makes a new private repository.
            needles ([`Needles`], *optional*):
                What must not be published in addition to the forget data as this class received them, such as
                `needles_of_dataset(rows)` of the rows before preprocessing.
            publication:
                Fields of [`Publication`]: `base_model`, `forget_disclosure`, `forget_description`, `gated_prompt`,
                `allowed`.

        Returns:
            [`PushResult`]: Print it to see what is left for you to do.

        Raises:
            `FileNotFoundError`: If there is no result of a finished run.
            `FileExistsError`: If the repository holds files and neither `exist_ok` nor `create_pr` is set.
            `LeakError`: If a trace was found. No request was made then.
            `ValueError`: If the files do not load or answer differently, see [`staged_model`]. No request was made.
            `ConnectionError`: If the Hub fails or refuses. The message says what became of the repository.
        """
        in_memory = self._in_memory()
        return on_main_process(
            lambda: push_folder_to_hub(
                self.args.output_dir,
                repo_id,
                needles=self._needles(needles),
                publication=Publication(**publication),
                in_memory=in_memory,
                trust_remote_code=self.args.trust_remote_code,
                private=private,
                exist_ok=exist_ok,
                create_pr=create_pr,
                revision=revision,
                commit_message=commit_message,
                gated=gated,
                token=token,
                api=api,
            )
        )

    def save_pretrained(
        self, folder: str | os.PathLike[str], *, needles: Needles | None = None, **publication: Any
    ) -> list[str]:
        """
        Writes the files that [`~FisherUnlearner.push_to_hub`] would publish to a new folder, by the same rules.

        Args:
            folder (`str`):
                The new folder.
            needles, publication:
                As for [`~FisherUnlearner.push_to_hub`].

        Returns:
            `list[str]`: The files, relative to `folder`.

        Raises:
            `FileNotFoundError`: If there is no result of a finished run.
            `FileExistsError`: If the folder exists and is not empty.
            `LeakError`: If a trace was found. Nothing is written then.
        """
        in_memory = self._in_memory()
        return on_main_process(
            lambda: save_published(
                self.args.output_dir,
                folder,
                self._needles(needles),
                Publication(**publication),
                in_memory,
                self.args.trust_remote_code,
            )
        )

    def create_model_card(self, **publication: Any) -> None:  # type: ignore[override]
        """
        Writes the card of the finished run to the output directory, without plots.

        Args:
            publication:
                Fields of [`Publication`].

        Raises:
            `FileNotFoundError`: If there is no result of a finished run.
            `FileExistsError`: If there is a README.md that somebody has written.
        """
        on_main_process(lambda: write_card(self.args.output_dir, Publication(**publication)))

    def _in_memory(self) -> ModelInMemory | None:
        """The model with a small batch of retain data. A sharded model has no forward pass in one process."""
        if self.is_sharded:
            return None
        _, batch = next(self.batch_source.batches(self.retain_dataset, 2, in_turns=False))
        return ModelInMemory(self.model, batch, self.processing_class)

    def _needles(self, further: Needles | None = None) -> Needles:
        """Needles of the forget data and of this run."""
        # A processor of texts and images has a tokenizer, a processor of images has none.
        tokenizer = getattr(self.processing_class, "tokenizer", self.processing_class)
        tokenizer = tokenizer if hasattr(tokenizer, "decode") else None
        rows = needles_of_dataset(
            self.forget_dataset,
            tokenizer=tokenizer,
            names=list(self.requests),
            class_names=getattr(self.model.config, "id2label", None),
            retain_dataset=self.retain_dataset,
        )
        of_run = needles_of_machine(run_name=self.args.run_name, hub_token=self.args.hub_token)
        return rows | of_run if further is None else rows | of_run | further
