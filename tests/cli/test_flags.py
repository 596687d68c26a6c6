"""Options in messages are written as on the command line."""

from distrib.cli.flags import with_flags


def test_names_of_options_become_flags_and_other_names_stay():
    assert with_flags("`run_id`: use `fresh`, not `forward`") == "--run-id: use --fresh, not `forward`"
