"""What `window_manager.downloads` is: the list as scripts read it, and the panel's fields."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import bpy
from bpy.app.handlers import persistent

from . import peek
from .enabling import Lazy

if TYPE_CHECKING:
    from .enabling import Registered

libraries = Lazy(".libraries", __package__)
names = Lazy("..transfer.names", __package__)
popup = Lazy(".popup", __package__)

# Of `workers.Status`, which nothing needs before there is a download.
STATUSES = ("QUEUED", "RUNNING", "PAUSED", "FINISHED", "SKIPPED", "FAILED", "CANCELLED")
IF_EXISTS = [
    ("RENAME", "Rename", "Keep both: the new file gets a number"),
    ("OVERWRITE", "Overwrite", "Replace the file once the new one is whole"),
    ("SKIP", "Skip", "Keep the file and fetch nothing"),
    ("UPDATE", "Update", "Fetch it only if it changed on the server"),
]
SHOW = [
    ("ALL", "All", "Show every download"),
    ("RUNNING", "Running", "Show only the downloads that are being fetched now"),
    ("FAILED", "Failed", "Show only the downloads that failed"),
]
WHEN_DONE = [
    ("NOTHING", "Nothing", "Leave the file in the folder"),
    ("IMPORT", "Import", "Bring the file into the scene"),
]
BLEND_RELATIVE = {"PATH_SUPPORTS_BLEND_RELATIVE"} if bpy.app.version >= (4, 5, 0) else set()
CATALOG = (
    "The catalog of the asset library that marked assets go into. Empty: they keep the one they have."
    " Make catalogs in the asset browser"
)
FIELDS = ("urls", "directory", "if_exists", "when_done", "catalog", "show", "active_index")


def catalogs(self: Any, context: Any, edit_text: str) -> list[str]:
    """What the field for a catalog offers: those of the library that its folder is in."""
    return list(libraries.offered(self.directory))


def _forget_catalog(self: Any, context: Any) -> None:
    """Another folder is another library, or none."""
    if self.catalog:
        self.catalog = ""


def _row(item: Any) -> Any:
    """The row of an item; None where it left the list a moment ago."""
    session = peek()
    return session and session.rows.find(item.uid)


def _getter(read: Callable[[Any], Any], default: Any) -> Callable[[Any], Any]:
    """What a property of an item is: what it reads of the row."""
    return lambda item: read(row) if (row := _row(item)) else default


def _text(name: str) -> Any:
    """What a text of a row says. Blender 5 crashes over one that is no Unicode, as a path need not be."""
    return _getter(lambda row: getattr(row, name).encode("utf-8", "replace").decode(), "")


_url = _getter(lambda row: names.shown(row.url), "")
_status = _getter(lambda row: STATUSES.index(row.status), 0)
_progress = _getter(lambda row: row.fraction, 0.0)


class DOWNLOADS_PG_item(bpy.types.PropertyGroup):
    """A download, as scripts see it: the number of its row, of which it tells the rest when asked"""

    uid: bpy.props.IntProperty(name="UID")
    name: bpy.props.StringProperty(name="Name", get=_text("name"))
    url: bpy.props.StringProperty(name="URL", description="Without user, password and query", get=_url)
    filepath: bpy.props.StringProperty(
        name="File Path", description="Once it is finished", subtype="FILE_PATH", get=_text("filepath")
    )
    status: bpy.props.EnumProperty(
        name="Status", items=[(status, status.title(), "") for status in STATUSES], get=_status
    )
    error: bpy.props.StringProperty(name="Error", get=_text("error"))
    note: bpy.props.StringProperty(name="Note", get=_text("note"))
    progress: bpy.props.FloatProperty(name="Progress", min=0.0, max=1.0, subtype="FACTOR", get=_progress)

    def __getattribute__(self, name: str) -> Any:
        if name == "filepath" and (row := _row(self)):
            return row.filepath  # as it is: scripts open it
        return super().__getattribute__(name)


def _choose(self: Any, context: Any) -> None:
    popup.draw_again()  # which says how many are chosen


class DOWNLOADS_PG_listed(bpy.types.PropertyGroup):
    """A file that a list names, to be chosen in the dialog"""

    name: bpy.props.StringProperty(name="Name")
    facts: bpy.props.StringProperty(name="Size")
    is_chosen: bpy.props.BoolProperty(
        name="Download", description="Download this file", default=True, update=_choose
    )


class DOWNLOADS_PG_state(bpy.types.PropertyGroup):
    """What `window_manager.downloads` is"""

    items: bpy.props.CollectionProperty(type=DOWNLOADS_PG_item)
    listed: bpy.props.CollectionProperty(type=DOWNLOADS_PG_listed)
    listed_index: bpy.props.IntProperty(name="Active File")
    active_index: bpy.props.IntProperty(name="Active Download")
    urls: bpy.props.StringProperty(
        name="URL", description="One or many links, separated by spaces", options={"TEXTEDIT_UPDATE"}
    )
    directory: bpy.props.StringProperty(
        name="Folder",
        description="Where the files go. Empty: the folder from the preferences. //: beside the .blend file",
        subtype="DIR_PATH",
        options=BLEND_RELATIVE,
        update=_forget_catalog,
    )
    if_exists: bpy.props.EnumProperty(name="If It Exists", items=IF_EXISTS)
    when_done: bpy.props.EnumProperty(name="When Done", items=WHEN_DONE)
    catalog: bpy.props.StringProperty(name="Catalog", description=CATALOG, search=catalogs)
    show: bpy.props.EnumProperty(name="Show", items=SHOW)


_kept: dict[str, str] = {}  # what the panel's fields said before a file load


@persistent
def _keep(*_: Any) -> None:
    """Blender opens a file, or disables the add-on: for a moment, if the file is of another template."""
    if state := state_of(bpy.context):
        _kept.update((name, getattr(state, name)) for name in FIELDS)


@persistent
def _restore(*_: Any) -> None:
    """A file is open."""
    if state := state_of(bpy.context):
        for name, value in _kept.items():
            setattr(state, name, value)
    _kept.clear()


def register(enabled: "Registered") -> None:
    """Make `window_manager.downloads`."""
    enabled.handler(bpy.app.handlers.load_pre, _keep)
    enabled.handler(bpy.app.handlers.load_post, _restore)
    enabled.classes(DOWNLOADS_PG_item, DOWNLOADS_PG_listed, DOWNLOADS_PG_state)
    bpy.types.WindowManager.downloads = bpy.props.PointerProperty(type=DOWNLOADS_PG_state)
    enabled.undo(delattr, bpy.types.WindowManager, "downloads")
    enabled.callback(_keep)


def state_of(context: Any) -> Any:
    """`window_manager.downloads`, or None while it is not registered."""
    # Not by `bpy.data`, which has nothing while Blender enables an add-on: another copy of this one, say.
    return getattr(context.window_manager, "downloads", None)
