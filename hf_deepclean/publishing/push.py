# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Pushes a cleaned model to the Hub, in one commit."""

import hashlib
import logging
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import ModelInfo

from ..report.report import REPORT_NAME
from ..runtime.files import matches, temporary_folder
from .card import CARD_NAME, CARD_NAME_BESIDE, UnlearningCard
from .contents.load_check import ModelInMemory
from .folder import Publication, staged_model
from .history import WEIGHT_FILES, HistoryReport, find_old_weights, list_files
from .leaks import Needles, check_for_leaks, needles_of_machine
from .public_report import PublicReport
from .staged_files import StagedFiles


logger = logging.getLogger(__name__)

# Files of a training, which a push deletes.
_TRAINING = (
    *("trainer_state.json", "training_args.bin", "all_results.json", "train_results.json", "eval_results.json"),
    *("checkpoint-*/*", "runs/*", "_fisher/*", "_unlearning_state/*", "events.out.tfevents*"),
)

OWNERS_CHECKLIST = """A push cannot remove these. They are left for you to remove:
- old revisions: run `hf-deepclean squash-history REPO`, then delete the old LFS files in the storage settings
- repositories of the original model, and their forks and duplicates
- caches of the original model on your machines (`hf cache ls`), at mirrors and at hosting providers
- quantised, merged, distilled and converted copies
- adapters and fine-tuned models that were trained on the original model
- the forgotten rows themselves: data sets on the Hub and their revisions, caches of `datasets`, backups, logs
- optimizer states, checkpoints, kept Fishers (`_fisher`) and `_unlearning_state` folders"""


@dataclass(frozen=True)
class PushResult:
    """
    The result of a push. `print` shows it with the list of what is left for the owner to do.

    Args:
        repo_id (`str`): The repository.
        commit ([`~huggingface_hub.CommitInfo`]): The commit.
        files (`tuple[str, ...]`): The files in the commit.
        deleted (`tuple[str, ...]`): The files that the commit deletes.
        history ([`HistoryReport`], *optional*): Where older weights still are. None for a pull request, or if the Hub
            did not answer.
        base_model (`str`, *optional*): Hub id of the original model.
    """

    repo_id: str
    commit: CommitInfo
    files: tuple[str, ...]
    deleted: tuple[str, ...]
    history: HistoryReport | None
    base_model: str | None

    @property
    def new_version_hint(self) -> str | None:
        """How to lead users of the original model to this one, by a line in its card."""
        if self.base_model in (None, self.repo_id):
            return None
        return (
            f"`metadata_update({self.base_model!r}, {{'new_version': {self.repo_id!r}}})` of huggingface_hub (or the "
            f"line `new_version: {self.repo_id}` in its card) leads users of {self.base_model} to this model."
        )

    def __str__(self) -> str:
        where = self.commit.pr_url or self.commit.commit_url
        lines = [f"{where}: {len(self.files)} files in one commit."]
        if self.deleted:
            lines.append(f"Deleted in it: {', '.join(self.deleted)}.")
        if self.history is not None:
            lines.append(str(self.history))
        lines += ["", OWNERS_CHECKLIST]
        if self.new_version_hint is not None:
            lines.append(f"- {self.new_version_hint}")
        return "\n".join(lines)


def push_folder_to_hub(
    folder: str | os.PathLike[str],
    repo_id: str,
    *,
    needles: Needles,
    publication: Publication | None = None,
    in_memory: ModelInMemory | None = None,
    trust_remote_code: bool = False,
    private: bool = True,
    exist_ok: bool = False,
    create_pr: bool = False,
    revision: str | None = None,
    commit_message: str = "Add the cleaned model",
    gated: str | None = None,
    token: str | bool | None = None,
    api: HfApi | None = None,
) -> PushResult:
    """
    Publishes the result of a run in one commit. Only files of an allow-list are published, and they are searched for
    leaks before the first request.

    In an existing repository the commit also deletes old weights and files of trainings. All other files stay.

    Args:
        folder (`str`):
            Output directory of a finished run.
        repo_id (`str`):
            The repository, such as `"me/clean-model"`.
        needles, publication, in_memory, trust_remote_code:
            As for [`staged_model`].
        private (`bool`, *optional*, defaults to `True`):
            Whether a new repository is private. An existing public repository needs `private=False`.
        exist_ok (`bool`, *optional*, defaults to `False`):
            Whether the repository may exist and hold files.
        create_pr (`bool`, *optional*, defaults to `False`):
            Whether to open a pull request. The repository may then hold files.
        revision (`str`, *optional*):
            The branch, by default `"main"`.
        commit_message (`str`, *optional*, defaults to `"Add the cleaned model"`):
            The title of the commit. It is searched for leaks too.
        gated (`str`, *optional*):
            `"auto"` or `"manual"`: people must request access, which is granted at once or by you.
            `publication.gated_prompt` is the question to them.
        token (`str`, *optional*):
            As for [`~huggingface_hub.HfApi`].
        api ([`~huggingface_hub.HfApi`], *optional*):
            The client, by default a new one.

    Returns:
        [`PushResult`]: Print it to see what is left for you to do.

    Raises:
        `FileExistsError`: If the repository holds files and neither `exist_ok` nor `create_pr` is set.
        `ValueError`: If `repo_id` has no owner, if the repository is public and `private` is not `False`, or as for
            [`staged_model`].
        `LeakError`: If a trace was found. No request was made then.
        `ConnectionError`: If the Hub still fails or refuses after all retries. Says what became of the repository.
    """
    _check_arguments(repo_id, gated)
    api, branch = HfApi(token=token) if api is None else api, revision or "main"
    publication = replace(publication or Publication(), repo_id=repo_id)
    needles |= _needles_of_push(folder, repo_id, token, api)
    _check_words(needles, publication, {"commit message": commit_message, "branch": branch, "repository": repo_id})
    with staged_model(folder, needles, publication, in_memory, trust_remote_code) as staged:
        base_model = PublicReport.load(staged.folder / REPORT_NAME).base_model
        with _explain_failures(api, repo_id, branch):
            head, is_new = _open_repo(api, repo_id, branch, private)
        there = [file.rfilename for file in head.siblings or []]
        if not is_new:
            _check_repo(head, branch, there, private, exist_ok or create_pr)
        with _explain_failures(api, repo_id, branch, head):
            targets = _targets(api, head, there, staged.names)
            deleted = _old_files(there, targets.values())
            with _gate(api, head, gated):
                where = {"revision": None if create_pr and branch == "main" else branch, "create_pr": create_pr}
                operations = [*_upload(api, head, staged, targets, where), *map(CommitOperationDelete, deleted)]
                commit = _commit(api, head, branch, operations, commit_message, where)
    history = None if create_pr else _find_old_weights(api, repo_id, branch)
    return PushResult(repo_id, commit, tuple(targets.values()), deleted, history, base_model)


def _check_arguments(repo_id: str, gated: str | None) -> None:
    if gated not in (None, "auto", "manual"):
        raise ValueError(f"`gated` is {gated!r} but must be 'auto', 'manual' or None.")
    if "/" not in repo_id:
        raise ValueError(f"`repo_id` is {repo_id!r}, which names no owner. Pass 'owner/{repo_id}'.")


def _needles_of_push(folder: Any, repo_id: str, token: Any, api: HfApi) -> Needles:
    """Needles of this machine and of the access token that the push uses."""
    secret = next((value for value in (token, api.token) if isinstance(value, str)), None)
    # The repository may have the name of the folder.
    return needles_of_machine(output_dir=folder, hub_token=secret).without([repo_id])


def _check_words(needles: Needles, publication: Publication, words: Mapping[str, str]) -> None:
    """Searches the words for leaks that are sent in addition to the files."""
    with temporary_folder() as folder:
        for name, text in words.items():
            (folder / name).write_text(text, encoding="utf-8")
        check_for_leaks(folder, needles, ignore=publication.allowed)


def _open_repo(api: HfApi, repo_id: str, branch: str, private: bool) -> tuple[ModelInfo, bool]:
    """The head of the branch, and whether the repository was made for it."""
    try:
        return api.model_info(repo_id, revision=branch), False
    except RevisionNotFoundError:
        raise ValueError(
            f"The repository {repo_id} has no branch {branch!r}. Create it (`HfApi().create_branch`), or leave out "
            "`revision`."
        ) from None
    except RepositoryNotFoundError:
        api.create_repo(repo_id, private=private)
        return api.model_info(repo_id, revision=branch), True


def _check_repo(head: ModelInfo, branch: str, there: list[str], private: bool, exist_ok: bool) -> None:
    # A repository with only this file is new, or was made by an interrupted push.
    if not exist_ok and set(there) - {".gitattributes"}:
        raise FileExistsError(
            f"The repository {head.id} exists and holds {len(there)} files. Nothing is overwritten unasked: choose "
            f"another repository, or pass `exist_ok=True` for a commit on {branch!r} that replaces the weights, or "
            "`create_pr=True` for a pull request."
        )
    if private and head.private is False:
        raise ValueError(
            f"The repository {head.id} is public. Pass `private=False` if everyone may have the cleaned model, or "
            "make the repository private first."
        )


def _targets(api: HfApi, head: ModelInfo, there: list[str], files: list[str]) -> dict[str, str]:
    """The path of every staged file in the repository. A README there that somebody has written stays."""
    targets = {name: name for name in files}
    if _is_hand_written(api, head, there, CARD_NAME):
        del targets[CARD_NAME]
        targets[CARD_NAME_BESIDE if CARD_NAME_BESIDE in files else CARD_NAME] = CARD_NAME_BESIDE
    return targets


def _old_files(there: Iterable[str], pushed: Collection[str]) -> tuple[str, ...]:
    """The files in a repository that a push deletes: weights and files of trainings that it does not replace."""
    return tuple(name for name in there if name not in pushed and matches(name, (*WEIGHT_FILES, *_TRAINING)))


def _is_hand_written(api: HfApi, head: ModelInfo, there: list[str], name: str) -> bool:
    if name not in there:
        return False
    path = api.hf_hub_download(head.id, name, revision=head.sha)
    return not UnlearningCard.is_generated(Path(path).read_text(encoding="utf-8", errors="replace"))


@contextmanager
def _gate(api: HfApi, head: ModelInfo, gated: str | None) -> Iterator[None]:
    """Gates the repository before the files arrive, and restores its setting if the push fails."""
    if gated is None:
        yield
        return
    api.update_repo_settings(head.id, gated=gated)
    try:
        yield
    except BaseException:
        with suppress(Exception):
            api.update_repo_settings(head.id, gated=head.gated or False)
        raise


def _upload(
    api: HfApi, head: ModelInfo, staged: StagedFiles, targets: Mapping[str, str], where: Mapping[str, Any]
) -> list[CommitOperationAdd]:
    """Sends the weights before the commit that names them, and verifies that they are what was checked."""
    additions = {name: CommitOperationAdd(target, staged.content(name)) for name, target in targets.items()}
    try:
        api.preupload_lfs_files(head.id, additions.values(), free_memory=False, **where)
    except Exception:
        # What was changed meanwhile explains why it could not be sent.
        staged.check_unchanged()
        raise
    for name, operation in additions.items():
        # The digest of what was sent, to the Hub or to its storage.
        staged.check(name, operation.upload_info.sha256.hex())
    staged.check_unchanged()
    return list(additions.values())


def _commit(
    api: HfApi, head: ModelInfo, branch: str, operations: list[Any], message: str, where: Mapping[str, Any]
) -> CommitInfo:
    try:
        return api.create_commit(head.id, operations, commit_message=message, parent_commit=head.sha, **where)
    except Exception:
        # The commit may exist, and only the answer was lost.
        with suppress(Exception):
            now = api.model_info(head.id, revision=branch).sha
            if not where["create_pr"] and now != head.sha and _holds(api, head.id, now, operations):
                return CommitInfo(f"{api.endpoint}/{head.id}/commit/{now}", message, "", now)
        raise


def _holds(api: HfApi, repo_id: str, commit: str, operations: list[Any]) -> bool:
    """Whether a commit holds the files that were sent."""
    there = {file.path: file for file in list_files(api, repo_id, commit)}
    for operation in operations:
        file = there.get(operation.path_in_repo)
        if isinstance(operation, CommitOperationDelete):
            if file is not None:
                return False
            continue
        if file is None or file.size != operation.upload_info.size:
            return False
        if file.lfs is not None:
            if file.lfs.sha256 != operation.upload_info.sha256.hex():
                return False
        else:
            with operation.as_file() as content:
                if file.blob_id != _git_hash(content.read()):
                    return False
    return True


def _find_old_weights(api: HfApi, repo_id: str, branch: str) -> HistoryReport | None:
    """Warns of old weights in the history. If the Hub does not answer, the push has still succeeded."""
    try:
        history = find_old_weights(repo_id, branch=branch, api=api)
    except Exception as error:
        logger.warning(
            f"The model is in {repo_id}, but whether its history holds older weights could not be found out "
            f"({type(error).__name__}). Call `find_old_weights({repo_id!r})` to try again."
        )
        return None
    if history.holds_old_weights:
        logger.warning(str(history))
    return history


def _git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def _explain_failures(api: HfApi, repo_id: str, branch: str, head: ModelInfo | None = None) -> Iterator[None]:
    """Raises failures as a `ConnectionError` that says what became of the repository, and tells it at a signal."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        became = _became(api, repo_id, branch, head, "a commit was made as a whole, by this push or another")
        logger.warning(f"The push to {repo_id} was interrupted. {became}")
        raise
    except Exception as error:
        # These refusals already say what to do.
        if isinstance(error, (ValueError, FileExistsError)) and not isinstance(error, HfHubHTTPError):
            raise
        raise _failure(api, repo_id, branch, head, error) from error


def _failure(api: HfApi, repo_id: str, branch: str, head: ModelInfo | None, error: Exception) -> ConnectionError:
    became = _became(api, repo_id, branch, head, "somebody else has pushed to it")
    cause = " ".join(str(error).split()) or type(error).__name__
    return ConnectionError(f"The push to {repo_id} failed. {became} The cause: {cause}")


def _became(api: HfApi, repo_id: str, branch: str, head: ModelInfo | None, if_moved: str) -> str:
    """What became of the branch, in a sentence."""
    if head is None:
        return f"Nothing was committed to {branch!r}."
    try:
        now = api.model_info(repo_id, revision=branch).sha
    except Exception:
        return f"The Hub makes a commit as a whole or not at all. {branch!r} was at {head.sha[:8]}."
    if now == head.sha:
        return f"No commit was made: {branch!r} is at {now[:8]} as before."
    return f"{branch!r} was at {head.sha[:8]} and is at {now[:8]}: {if_moved}."
