"""What tests cannot do on Windows, and under the Wine that stands in for it here, each with its reason.

`PLAYED` counts also where Linux plays Windows (`windows_rules.py`). The patterns are `fnmatch`'s.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from fnmatch import fnmatchcase

import pytest

PLAYED: dict[str, tuple[str, ...]] = {
    "Windows renames and deletes no open file, so nobody can do that behind our back": (
        "tests/engine/test_part.py::test_a_file_that_is_published_between_open_and_lock_is_let_go*",
        "tests/engine/test_part.py::test_nothing_is_removed_that_somebody_else_put_there",
        "tests/engine/test_part.py::test_what_somebody_put_in_place_of_the_partial_file_is_not_published*",
        "tests/engine/test_store.py::test_a_lock_that_was_removed_meanwhile_is_none",
        "tests/engine/test_disk.py::test_a_*_that_somebody_deletes_*",
    ),
    "Windows' rename never replaces: no hard link is made there": (
        "tests/engine/test_part.py::test_when_publishing_fails_nothing_stands_under_the_name",
        "tests/engine/test_part.py::test_a_partial_file_that_was_published_by_a_process_that_died_is_let_go",
        "tests/engine/test_fetch.py::test_a_partial_file_that_somebody_touched?with other name?",
        "tests/engine/test_fetch.py::test_a_name_that_the_file_system_does_not_take",
    ),
}

WINDOWS: dict[str, tuple[str, ...]] = {
    "Windows has no modes of files and no umask": (
        "tests/engine/test_part.py::test_modes*",
        "tests/engine/test_store.py::test_the_list_is_private",
        "tests/engine/test_store.py::test_the_folders_are_private_and_few",
    ),
    "Windows has no pipes and devices in folders": (
        "tests/engine/test_fetch.py::test_something_that_is_no_file_under*?pipe?",
        "tests/engine/test_fetch.py::test_something_that_is_no_file_under*?device?",
        "tests/engine/test_leftovers.py::*?a pipe for a sidecar?",
        "tests/engine/test_part.py::*?a pipe?",
        "tests/engine/test_store.py::*?a pipe?",
        "tests/engine/test_logins.py::*?pipe?",
    ),
    "Windows lists no command beside a process, and none that has ended": (
        "tests/test_server.py::test_leak_check_names_a_child_living_or_not_waited_for",
    ),
    "Windows does not tell what another process has open and mapped": (
        "tests/engine/test_child.py::test_one_process_one_pipe_and_nothing_else",
        "tests/engine/test_child.py::test_it_does_not_import_what_knows_blender",
    ),
    "Windows' names are Unicode: there are none that are only bytes": (
        "tests/wheel/test_folders.py::*utf_8*",
        "tests/wheel/test_folders.py::test_a_folder_beside_the_blend_file",
    ),
    "Windows has drives and shares, and its users' folders stand side by side": (
        "tests/wheel/test_folders.py::test_a_folder_that_is_not_absolute_is_a_sentence?C:??dl?",
        "tests/wheel/test_folders.py::test_a_folder_is_understood_as_people_write_it?FILE*",
        "tests/wheel/test_folders.py::test_a_folder_is_understood_as_people_write_it?file:////*",
        "tests/wheel/test_folders.py::test_a_folder_that_is_not_absolute_is_a_sentence?*server*share?",
        "tests/wheel/test_folders.py::test_a_folder_that_is_not_absolute_is_a_sentence?file://elsewhere/relative?",
        "tests/wheel/test_folders.py::test_a_folder_that_is_not_absolute_is_a_sentence?~nobody*",
    ),
    "Windows names its own Downloads folder, not the desktop's": (
        "tests/wheel/test_folders.py::test_no_folder_means_the_one_of_the_preferences_or_the_systems_own*",
    ),
    "Windows sends Ctrl-C to a console, and the child has none": (
        "tests/wheel/test_executed.py::test_ctrl_c_cancels_joins_and_leaves_what_the_next_blender_finds",
        "tests/engine/test_child.py::test_ctrl_c_in_the_terminal_is_not_for_it",
    ),
    "Windows keeps certificates in a store, and in no file": (
        "tests/engine/test_connect.py::test_where_the_default_paths_hold_nothing_the_system_bundle_is_used",
    ),
    "Windows takes half a pair of surrogates for a character": (
        "tests/engine/test_records.py::test_folders_that_the_system_cannot_be_asked_about_are_dropped",
    ),
    "Windows has no sha256sum": (
        "tests/wheel/test_vendor.py::test_a_copy_says_what_it_is_and_can_be_checked",
    ),
    "Windows does not fork": (
        "tests/engine/test_store.py::test_dying_anywhere_while_adopting_loses_no_row_and_doubles_none*",
        "tests/engine/test_child.py::test_a_child_whose_blender_is_gone_leaves_though_somebody_holds_the_pipe",
    ),
    "The disk that dies has Linux' calls; where Linux plays Windows, it dies at those of Windows": (
        "tests/engine/test_crash.py::*",
    ),
    "Windows mounts nothing for a test": ("tests/engine/test_store.py::test_a_disk_that_is_really_full",),
}

WINE: dict[str, tuple[str, ...]] = {
    "Wine is slow with the first TLS connection: the second for which another download waits passes unseen": (
        "tests/engine/test_yielding.py::test_a_phase_before_the_body_is_begun_again_in_the_child",
    ),
    "Wine's select shows no hang-up behind bytes that nobody has read, and the server misses it": (
        "tests/engine/test_hosts.py::test_stop_in_the_tls_handshake*",
        "tests/engine/test_hosts.py::test_stop_while_a_proxy_does_not_answer*",
    ),
    "Wine's paths end where Linux' do, and are then called an invalid argument": (
        "tests/engine/test_disk.py::test_a_path_that_is_too_long",
    ),
    "Wine replaces a file that is read-only": (
        "tests/engine/test_windows.py::test_a_read_only_file_is_no_open_one",
    ),
    "Wine 8 shows a program no symbolic link, only what it leads to": (
        "tests/engine/test_store.py::*?a link?",
        "tests/engine/test_fetch.py::test_planted_links_are_never_written_through",
        "tests/engine/test_leftovers.py::*?a link?",
        "tests/engine/test_part.py::*?a link?",
        "tests/engine/test_disk.py::test_a_folder_that_is_a_shortcut_to_nothing*",
        "tests/engine/test_logins.py::test_a_netrc_may_lie_elsewhere?~/link*",
        "tests/engine/test_catalogs.py::test_a_link_is_not_written_through",
        "tests/engine/test_records.py::test_rows_stand_for_their_files_whatever_the_folder_is_called",
        "tests/wheel/test_rows.py::test_the_folder_that_it_is_in_already_is_tried_again?True?",
    ),
    "Wine 8 cannot load numpy, with which glTF and FBX are written and read": (
        "tests/wheel/test_import.py::test_each_type_comes_into_the_scene?rock.gl*",
        "tests/wheel/test_import.py::test_each_type_comes_into_the_scene?rock.fbx?",
        "tests/wheel/test_import.py::test_models_are_placed_at_the_cursor?rock.gl*",
        "tests/wheel/test_import.py::test_nothing_is_imported_unasked",
        "tests/wheel/test_import.py::test_an_archive_is_unpacked_and_its_model_imported",
        "tests/wheel/test_import.py::test_of_one_model_in_several_types_one_is_imported",
        "tests/wheel/test_import.py::test_a_gltf_*",
    ),
    "Wine 8 maps no file into memory as Blender asks for it": (
        "tests/wheel/test_import.py::test_each_type_comes_into_the_scene?rock.obj?",
        "tests/wheel/test_import.py::test_each_type_comes_into_the_scene?rock.png?",
        "tests/wheel/test_import.py::test_each_type_comes_into_the_scene?rock.jpg?",
        "tests/wheel/test_import.py::test_each_type_comes_into_the_scene?rock.webp?",
        "tests/wheel/test_import.py::test_each_type_comes_into_the_scene?sky.*",
        "tests/wheel/test_import.py::test_each_type_comes_into_the_scene?flat.exr?",
        "tests/wheel/test_import.py::test_models_are_placed_at_the_cursor?rock.obj?",
        "tests/wheel/test_import.py::test_it_goes_into_the_collection_that_is_active",
        "tests/wheel/test_import.py::test_the_old_world_is_kept",
        "tests/wheel/test_import.py::test_edit_mode_is_never_disturbed",
        "tests/wheel/test_import.py::test_an_archive_that_somebody_touches_while_it_is_unpacked_is_imported",
        "tests/wheel/test_import.py::test_a_scene_of_another_file_is_left_alone",
    ),
    "Wine cannot reset a connection: it shuts each down before it closes it": (
        "tests/test_server.py::test_reset_after*",
        "tests/engine/test_connect.py::test_a_connection_that_is_reset_as_soon_as_it_is_made?99?",
        "tests/engine/test_faults.py::*-reset before the headers, always?",
        "tests/engine/test_faults.py::*-a handshake reset?",
        "tests/engine/test_faults.py::*-resets at once?",
    ),
}


def skip_what_cannot_run(items: Iterable[pytest.Item], *, plays_windows: bool) -> None:
    """Mark the tests of this module."""
    tables = [PLAYED] if plays_windows else [PLAYED, WINDOWS, WINE] if sys.platform == "win32" else []
    reasons = {pattern: why for table in tables for why, patterns in table.items() for pattern in patterns}
    for item in items:
        for pattern, why in reasons.items():
            if fnmatchcase(item.nodeid, pattern):
                item.add_marker(pytest.mark.skip(reason=why))
