"""Rules of stored records that somebody has damaged: one error names the record."""

from __future__ import annotations

from collections.abc import Callable

import optuna
import pytest

from hpsearch.errors import StorageError
from hpsearch.storage.records import StudyKey, TrialKey, TrialRow, read_config, read_epochs, read_study
from hpsearch.workflows.supervisor import Search


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (TrialKey.RUN, "{"),
        (TrialKey.RUN, "7"),
        (TrialKey.RUN, '{"config": 3}'),
        (TrialKey.RUN, '{"config": {"model": {}}}'),
        (TrialKey.EPOCHS, "no JSON"),
        (TrialKey.EPOCHS, "7"),
        (TrialKey.EPOCHS, '[{"number": 1}]'),
        (TrialKey.ATTEMPTS, 7),
    ],
)
def test_a_damaged_record_of_a_trial_is_named(key: str, value: object) -> None:
    trial = optuna.trial.create_trial(value=0.5, user_attrs={key: value})
    trial.number = 4
    with pytest.raises(StorageError, match="the stored record of trial 4 is damaged: "):
        TrialRow.from_trial(trial)
    for read, own in ((read_config, TrialKey.RUN), (read_epochs, TrialKey.EPOCHS)):
        if key == own:
            with pytest.raises(StorageError, match="the stored record of trial 4 is damaged: "):
                read(trial)


@pytest.mark.parametrize(
    ("key", "value"),
    [(StudyKey.FILE, "text"), (StudyKey.FILE, {"text": ""}), (f"{StudyKey.HELD_OUT_READING}1", 3), (f"{StudyKey.HELD_OUT_READING}1", {})],
)
def test_a_damaged_record_of_a_study_is_named(searched: Callable[..., Search], key: str, value: object) -> None:
    study = searched().study
    study.set_user_attr(key, value)
    with pytest.raises(StorageError, match="the stored record of the study 'small' is damaged: "):
        read_study(study)
