"""What a study promises to survive: each fault with its tests, as docs/reliability.md lists it.

`python -m tests.faults.summary` writes that list from here and from the records of docs/results.
"""

from __future__ import annotations

from typing import NamedTuple


class Promise(NamedTuple):
    """`tests`: FILE::FUNCTION below tests/. `cases`: faults that one run of them injects, for want of a record.
    `recorded`: names in docs/results/reliability.jsonl. `stock`: names in reliability-stock.jsonl."""

    id: str
    fault: str
    holds: str
    tests: tuple[str, ...]
    cases: int = 0
    recorded: tuple[str, ...] = ()
    stock: tuple[str, ...] = ()


ROUNDS = "faults/test_rounds.py::test_rounds_of_a_fault_break_no_invariant"
RAY = "faults/test_ray.py::test_the_real_command_under_faults"
POLITE = "test_kill.py::test_a_polite_end_is_75_and_leaves_nothing_behind"

PROMISES = (
    Promise("K1", "SIGKILL of the driver, by the clock or at one of 22 named points; ledger, queue, checkpoints and "
            "tables of a training that costs nothing", "the same command goes on; every training once, at most the "
            "epoch in progress again", (ROUNDS,), recorded=("K1",)),
    Promise("K1-rungs", "the same amid rungs, a race for more seeds, and a constraint that some trials break",
            "the same; each trial's state is what its trainings say, also for Optuna", (ROUNDS,),
            recorded=("K1-rungs",)),
    Promise("K2", "SIGKILL of the real driver: amid real trainings, or while it or Ray starts; its orphans swept or "
            "left to the next start", "as K1", ("test_kill.py::test_kill_the_driver_twice",), recorded=("K2",),
            stock=("kill",)),
    Promise("K3", "SIGTERM, to the driver or to its whole process group", "exit 75 within 20 s, lease released, no "
            "process left, goes on", (POLITE, RAY,
            "faults/test_interruption.py::test_a_sigterm_that_nobody_heeds_is_75",
            "test_evaluate.py::test_a_sigterm_is_75_and_the_same_command_goes_on"), 7, recorded=("K3",),
            stock=("sigterm",)),
    Promise("K4", "SIGINT twice", "exit 130, nothing left, goes on",
            (RAY, "faults/test_interruption.py::test_ctrl_c_twice_ends_at_once"), 2, recorded=("K4",)),
    Promise("K5", "SIGKILL of workers: all by their pids, or each at the end of an epoch before anything of it is kept",
            "tried again from the newest checkpoint, counted, at most an epoch lost each time; three times in a start, "
            "nine in all", (RAY, "faults/test_database.py::test_the_machines_failures_are_tried_again_and_counted"),
            recorded=("K5",)),
    Promise("K6", "SIGKILL of Ray's raylet, or of its head", "exit 75, said, nothing left, goes on", (RAY,),
            1, recorded=("K6",)),
    Promise("K7", "SIGKILL inside a checkpoint's write: before writing, before fsync, before and after the rename, or "
            "by the clock", "the newest whole checkpoint is read, its hash is right, nothing half-written is read",
            (ROUNDS,), recorded=("K7",)),
    Promise("C1", "a checkpoint cut at 0, 1 byte, 50 %, 99.9 %; 64 bits flipped, or cut anywhere; HTML, tar, an evil "
            "pickle, each also under its own right hash", "the one before is used, the user is told, no code runs",
            ("faults/test_checkpoints.py::test_cut_off",
             "faults/test_checkpoints.py::test_bits_flipped_and_cut_anywhere",
             "faults/test_checkpoints.py::test_something_else_in_its_place"), 52),
    Promise("C2", "the database cut off at each of 20 places, or gone", "never a new study in silence: exit 2, naming "
            "the file", (
            "faults/test_database.py::test_a_database_cut_off_anywhere_never_begins_a_new_study_in_silence",
            ), 21),
    Promise("D1", "no space left, at four points and by the kernel's own limit", "exit 75 with one message; the next "
            "start goes on", (
            "faults/test_database.py::test_a_full_disk_breaks_nothing_and_is_told_from_a_fault_of_ours",
            "faults/test_database.py::test_a_real_limit_on_files_is_a_full_disk_too"), 5),
    Promise("D1, real", "the same in the real command: checkpoint, log, result, tables, ledger", "exit 75, no training "
            "blamed, goes on", (RAY,), 1, recorded=("D1",)),
    Promise("S1", "the database locked by another process", "it is waited for (60 s), then said",
            ("faults/test_database.py::test_a_locked_database_is_waited_for",
             "faults/test_database.py::test_a_database_locked_for_too_long_is_said"), 2),
    Promise("S2", "four studies begin in one database at once", "all complete",
            ("faults/test_database.py::test_four_studies_write_into_one_database",), 4),
    Promise("S3", "four drivers open a fresh MLflow store at once", "none dies",
            ("faults/test_database.py::test_a_fresh_mlflow_store_opened_by_many_at_once",), 4),
    Promise("S4", "two drivers within 0 to 5 s of each other; every third time the first is killed and a third one "
            "started", "one works, the other exits 4 and says who; no configuration trained twice; a dead driver is "
            "succeeded at once", (ROUNDS, "test_run.py::test_a_second_driver_is_told_who_holds_the_study"),
            recorded=("S4",), stock=("twice",)),
    Promise("S4-apart", "the same with a folder each and one database, so that only the lease stands between them",
            "as S4", (ROUNDS, "faults/test_ownership.py::test_of_many_that_come_at_once_one_gets_it"),
            recorded=("S4-apart",)),
    Promise("S4-ray", "the same with the real command", "as S4",
            ("test_run.py::test_a_second_driver_is_told_who_holds_the_study",), 1, recorded=("S4-ray",)),
    Promise("S5", "eleven fields of the question changed under an old name", "refused with the field's name, or forked "
            "with `--fork-study`", ("faults/test_database.py::test_another_request_is_refused_with_the_fields_name",
            "faults/test_database.py::test_another_space_is_refused_with_the_fields_name"), 11),
    Promise("T1", "the clock an hour back and a day forward", "no live lease ends, no dead one stays, nothing is "
            "trained again", ("faults/test_ownership.py::test_a_clock_that_was_set_ends_no_lease_and_keeps_no_dead_one",
            "faults/test_database.py::test_a_clock_set_between_sessions_changes_nothing"), 5),
    Promise("N1", "nan or infinity in loss, class losses, teacher, student, temperatures or a metric, in the first, "
            "middle and last epoch; an objective missing; a learning rate of 1e30 through the real driver",
            "FAILED with the reason, on no front, nothing of it in MLflow, the search goes on",
            ("core/test_finite.py::test_n1_first_middle_and_last_epoch",
             "core/test_finite.py::test_n1_a_metric_through_run_trial",
             "core/test_finite.py::test_n1_through_run_trial",
             "search/test_nonfinite.py::test_a_worker_that_reports_such_a_number_has_failed",
             "search/test_nonfinite.py::test_n1_through_the_real_driver"), 29, stock=("nan", "inf")),
    Promise("N2", "class risks of no variance, one class nan, absent or alone, a spread of 600 orders of magnitude",
            "temperatures finite and within their bounds; equal risks move none; no class is special",
            ("core/test_absld.py::test_n2_any_risks_of_any_number_of_classes",
             "core/test_absld.py::test_no_risk_breaks_a_temperature"), 2000),
    Promise("N3", "logits to 1000, temperatures 0.05 to 100, float32 and bfloat16", "loss and gradient finite, and "
            "float64's", ("core/test_losses.py::test_n3_extreme_logits_and_temperatures_against_float64",), 1000),
    Promise("M1", "GPU memory that runs out amid a step (on a CPU: the error, raised), in every method",
            "one retry in micro-batches with the same numbers, then FAILED(oom)",
            ("core/test_memory.py::test_m1_a_repeated_step_equals_the_step_to_the_bit",
             "core/test_memory.py::test_m1_the_gradients_themselves_are_equal",
             "core/test_memory.py::test_m1_m2_through_the_worker"), 26),
    Promise("P1", "the UI's port is taken", "the next free one, printed; with `--port` exit 2",
            ("test_ui.py::test_a_taken_default_port_gives_the_next_free_one",
             "test_ui.py::test_a_port_asked_for_and_taken_is_refused"), 2),
    Promise("P2", "MLflow's server hangs, says 500, is killed, was never there", "training waits for nothing; later "
            "every point is there once", ("search/test_mirroring.py::test_the_driver_never_waits_for_a_server",
            "search/test_mirroring.py::test_a_server_that_hangs_is_killed_and_returns_has_every_point_once",
            "search/test_mirroring.py::test_away_and_back"), 5),
    Promise("P2, real", "a real MLflow server killed for 60 s amid real trainings", "the same",
            ("search/test_mirroring.py::test_a_server_that_hangs_is_killed_and_returns_has_every_point_once",),
            recorded=("P2",), stock=("mlflow",)),
    Promise("U1", "words, types, keys, names, teachers, checkpoints, ports and homes that are wrong", "one message "
            "that names the field, exit 2, nothing created",
            ("test_run.py::test_refused_with_one_message_and_nothing_created",
             "test_run.py::test_refused_by_the_real_command",
             "test_run.py::test_a_home_in_which_nothing_can_be_written_is_named",
             "core/test_teacher_files.py::test_bad_files_give_their_message",
             "core/test_teachers.py::test_a_teacher_of_other_classes_is_refused_without_data",
             "search/test_mirroring.py::test_an_experiment_that_was_deleted_is_refused_before_anything_is_trained"),
            52),
    Promise("X1", "everything that docs/security.md holds off", "each row there names its test",
            ("faults/test_promises.py::test_every_test_that_the_pages_name_is_there",)),
    Promise("X2", "a run and the UI, looked at from outside", "nothing listens but on the loopback address; no secret "
            "in any file or line", ("test_security.py::test_x2_a_run_listens_on_loopback_only_and_writes_no_secret",
            "test_ui.py::test_it_listens_on_loopback_only_and_leaves_no_process"), 3),
)  # fmt: skip
MATRIX = tuple("K1 K2 K3 K4 K5 K6 K7 C1 C2 D1 N1 N2 N3 M1 P1 P2 S1 S2 S3 S4 S5 T1 U1 X1 X2".split())
