"""The operators: thin, each asks the session."""

import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import bpy

from .session import current, is_enabled, modal, peek
from .session.enabling import Lazy
from .session.state import BLEND_RELATIVE, CATALOG, IF_EXISTS, WHEN_DONE, catalogs

if TYPE_CHECKING:
    from .session.enabling import Registered
    from .session.records import Lying
    from .session.session import Session
    from .session.tally import Tally
    from .transfer.names import Link
    from .workers import Download

cli = Lazy(".session.cli", __package__)
dialog = Lazy(".session.dialog", __package__)
drawing = Lazy(".session.drawing", __package__)
fetching = Lazy(".session.fetching", __package__)
intake = Lazy(".session.intake", __package__)
job = Lazy(".transfer.job", __package__)
libraries = Lazy(".session.libraries", __package__)
names = Lazy(".transfer.names", __package__)
online = Lazy(".session.online", __package__)
popup = Lazy(".session.popup", __package__)
portable = Lazy(".transfer.portable", __package__)
queue = Lazy(".session.queue", __package__)
settings = Lazy(".session.settings", __package__)
space = Lazy(".transfer.space", __package__)
texts = Lazy(".session.links", __package__)
watch = Lazy(".session.watch", __package__)
words = Lazy(".session.words", __package__)
workers = Lazy(".workers", __package__)

TAB_INTERVAL = 0.1  # seconds until a sidebar that was opened is drawn
DIALOG_WIDTH = 500  # pixels at a resolution scale of 1
CONFIRM_WIDTH = 320  # likewise


def _is_online(cls: Any, context: Any) -> bool:
    """The poll of what goes to the network."""
    return online.is_online(cls)


class DOWNLOADS_OT_start(modal.Modal, bpy.types.Operator):
    """Download files in the background while Blender stays usable"""

    bl_idname = "downloads.start"
    bl_label = "Download Files"

    urls: bpy.props.StringProperty(
        name="URLs",
        description="One or many links, separated by spaces or new lines. A link may end in #sha256=…",
        options={"SKIP_SAVE"},
    )
    directory: bpy.props.StringProperty(
        name="Folder",
        description="Empty: the folder from the preferences. //: beside the .blend file",
        subtype="DIR_PATH",
        options={"SKIP_SAVE", *BLEND_RELATIVE},
    )
    if_exists: bpy.props.EnumProperty(name="If It Exists", items=IF_EXISTS, options={"SKIP_SAVE"})
    when_done: bpy.props.EnumProperty(name="When Done", items=WHEN_DONE, options={"SKIP_SAVE"})
    catalog: bpy.props.StringProperty(
        name="Catalog", description=CATALOG, search=catalogs, options={"SKIP_SAVE"}
    )

    poll = classmethod(_is_online)

    _is_invoked = False
    _has_dialog = False
    _library = ""

    def invoke(self, context: Any, event: Any) -> set[str]:
        if bpy.app.background:
            return self.execute(context)
        self._is_invoked = True
        is_dropped = current().claim_dropped()  # a list that was dropped: that is meant alone
        if self.urls.strip() or (current().wants_run and not is_dropped):
            return self.execute(context)
        state = context.window_manager.downloads
        copied = state.urls if texts.names_list(state.urls) else context.window_manager.clipboard
        if is_dropped:
            copied = ""
        self.urls = texts.add_links("", copied)
        self._has_dialog = True
        self._library = libraries.library_meant(self.directory)
        self._look()
        return context.window_manager.invoke_props_dialog(self, width=DIALOG_WIDTH, confirm_text="Download")

    def _look(self) -> None:
        """Ask servers what the links are of; nothing waits for their answers."""
        dialog.show(texts.parse(self.urls)[0], self.directory, self.if_exists)

    def check(self, context: Any) -> bool:
        """A field of the dialog was changed."""
        if self._library != (library := libraries.library_meant(self.directory)):
            self._library, self.catalog = library, ""  # which was the other one's
        self._look()
        return True

    def cancel(self, context: Any) -> None:
        super().cancel(context)
        if self._has_dialog and not self._run:
            dialog.leave()

    def draw(self, context: Any) -> None:
        self.layout.use_property_split = True
        self.layout.prop(self, "urls", placeholder="Links, or a text with links in it")
        self.layout.prop(self, "directory", placeholder=drawing.default_folder())
        drawing.catalog(self.layout, self, placeholder="As in the File")
        self.layout.prop(self, "if_exists")
        self.layout.prop(self, "when_done")
        dialog.draw(self.layout, context)

    def execute(self, context: Any) -> set[str]:
        if self._has_dialog and not peek():
            return {"CANCELLED"}  # the add-on was disabled while it was open
        if self._is_invoked and not (self._has_dialog or self.urls.strip()):
            return self.begin(context)  # for what is in the list, which knows where its files go
        try:
            options = self._options()
        except job.TransferError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        if self._is_invoked:
            return self._start(context, options)
        return self._block(*names.parse_links(self.urls), options)

    # -- Invoked.

    def _start(self, context: Any, options: dict[str, Any]) -> set[str]:
        session = current()
        self._add(session, **options)
        if session.intake.is_waiting:
            session.take_in(intake.AT_ONCE)
            state = context.window_manager.downloads
            if state.urls == self.urls:  # the panel's button started with them
                state.urls = ""
            session.mirror.flush()
        self.ticked()
        result = self.begin(context)
        if self._has_dialog:
            dialog.leave()
        return result

    def _add(self, session: "Session", *, directory: str, **options: Any) -> None:
        """Have the links come into the list."""
        if words := [] if self._has_dialog else texts.plain_links(self.urls):
            session.intake.add(intake.Batch(words, directory, options))
            return
        links, problems = texts.parse(self.urls)
        session.intake.complain(problems)
        batches, known = {"": links}, {}
        if self._has_dialog:  # what was chosen from lists comes in the place of those, each in its folder
            dialog.choose(session.ahead)
            batches, known = session.ahead.batches(links), session.ahead.known()
            if not batches and not problems:
                session.intake.complain([dialog.NONE_CHOSEN if session.ahead.listed else texts.NOT_FOUND])
        for subfolder, batch in batches.items():
            where = os.path.normpath(os.path.join(directory, subfolder))
            session.intake.add(intake.Batch(batch, where, options, known))

    def ticked(self) -> None:
        """Say what could not be added, once it is known of all."""
        if problems := current().intake.problems():
            self.report({"WARNING"}, intake.shortened(problems))

    def over(self, tally: "Tally") -> None:
        current().mirror.flush()
        self.report({"WARNING" if tally.failed else "INFO"}, tally.sentence)

    def say(self, kind: set[str], sentence: str) -> None:
        self.report(kind, sentence)

    # -- Executed.

    def _block(self, links: "list[Link]", problems: list[str], options: dict[str, Any]) -> set[str]:
        if not links and not problems:
            problems = ["Nothing to download: urls is empty"]
        handle = fetching.Handle(current())
        handle.begin(links, wait=True, **options)
        problems += intake.failures(handle.rows)
        if problems:
            self.report({"ERROR"}, "\n".join(problems))
        are_cancelled = all(row.status == "CANCELLED" for row in handle.rows if row.uid)
        return {"CANCELLED"} if are_cancelled else {"FINISHED"}

    def _options(self) -> dict[str, Any]:
        """Raises TransferError in a sentence where there is no such folder, or catalog."""
        folder = settings.folder(self.directory)
        if self.catalog and self.catalog not in libraries.catalogs_of(folder):
            raise job.TransferError(f"The folder is in no asset library with a catalog “{self.catalog}”")
        return {
            "directory": folder,
            "if_exists": job.IfExists(self.if_exists),
            "when_done": self.when_done,
            "catalog": self.catalog,
        }


# -- What most operators have in common.


class _Acting:
    """Does what `act` does, and reports in a sentence why that cannot be."""

    bl_options = {"INTERNAL"}
    complaint = "ERROR"
    """What kind of report says why."""

    def act(self, context: Any) -> None:
        """Do it. Raises TransferError in a sentence where it cannot be done."""
        raise NotImplementedError

    def execute(self, context: Any) -> set[str]:
        if not is_enabled():  # a dialog can outlive its add-on
            return {"CANCELLED"}
        try:
            self.act(context)
        except job.TransferError as error:
            self.report({self.complaint}, words.readable(str(error)))
            return {"CANCELLED"}
        return {"FINISHED"}


class _Asking(_Acting):
    """Asks first, in a dialog that we draw and so know of: Blender's own for that would outlive the class."""

    _question = ""

    def confirm(self, context: Any, question: str = "", width: int = CONFIRM_WIDTH, **texts: str) -> set[str]:
        """Open the dialog, so many pixels wide at a scale of 1; `texts`: its title, and its button's."""
        self._question = question
        return context.window_manager.invoke_props_dialog(self, width=width, **texts)

    def draw(self, context: Any) -> None:
        popup.drawn(context)
        if is_enabled():  # it can outlive its add-on
            self.show(self.layout, context)

    def show(self, layout: Any, context: Any) -> None:
        """Draw what is in the dialog."""
        layout.label(text=self._question)


def _description(items: list[tuple[str, str, str]], chosen: str) -> str:
    """The tooltip of a button that has chosen one of several for its operator."""
    return next(text for name, _, text in items if name == chosen)


# -- Operators on rows.


class _OnRows(_Acting):
    """`uid` wins over `index`; neither means every row, or the active one, as the operator says."""

    # No limits: none is to be bent into the one that means "all". Hidden: a file browser would show them.
    uid: bpy.props.IntProperty(name="UID", options={"SKIP_SAVE", "HIDDEN"})
    index: bpy.props.IntProperty(name="Index", default=-1, options={"SKIP_SAVE", "HIDDEN"})
    for_all = ""
    """The tooltip where no row is named: it does something else then than its docstring says."""

    @classmethod
    def description(cls, context: Any, properties: Any) -> str:
        return cls.for_all if not properties.uid and properties.index == -1 else ""

    @property
    def are_all(self) -> bool:
        """Whether no row is named."""
        return not self.uid and self.index == -1

    def find(self, context: Any) -> "Download | None":
        """The row that is meant, or the active one; None where there is none."""
        rows = current().rows
        if self.uid:
            return rows.find(self.uid)
        return rows.at(context.window_manager.downloads.active_index if self.are_all else self.index)

    def one(self, context: Any) -> "Download":
        """The same. Raises TransferError where there is none."""
        if row := self.find(context):
            return row
        raise job.TransferError("There is no such download in the list")

    def each(self, context: Any, action: "Callable[[Download], None]", *statuses: str) -> "list[Download]":
        """Do it to the row that is meant, or to all, where it has one of `statuses`. Raises TransferError."""
        return current().act(action, statuses, None if self.are_all else self.one(context))


class _OnOne(_OnRows):
    """On the row that is meant, or the active one."""

    def act_on(self, context: Any, row: "Download") -> None:
        """Do it. Raises TransferError in a sentence where it cannot be done."""
        raise NotImplementedError

    def act(self, context: Any) -> None:
        self.act_on(context, self.one(context))

    def invoke(self, context: Any, event: Any) -> set[str]:
        row = self.find(context)
        if not row:
            return self.execute(context)  # which says so
        self.uid = row.uid  # whichever is active when a dialog is done
        return self.ask(context, row)

    def ask(self, context: Any, row: "Download") -> set[str]:
        """Open a dialog, where one is needed."""
        return self.execute(context)


class DOWNLOADS_OT_cancel(_OnRows, _Asking, bpy.types.Operator):
    """Stop downloading; what was received is kept for a retry"""

    bl_idname = "downloads.cancel"
    bl_label = "Cancel"
    for_all = "Stop every download that is not finished; what was received is kept for a retry"

    def invoke(self, context: Any, event: Any) -> set[str]:
        current().take_in()
        rows = [row for row in current().rows if row.status in queue.UNDER_WAY] if self.are_all else []
        if bpy.app.background or len(rows) <= 1:
            return self.execute(context)
        title = f"Stop {len(rows):,} Downloads?"
        kept = "What was received is kept: Retry goes on with it"
        return self.confirm(context, kept, title=title, confirm_text="Stop Downloads")

    def act(self, context: Any) -> None:
        self.each(context, current().cancel, *queue.UNDER_WAY)
        current().flush()


class DOWNLOADS_OT_pause(_OnRows, bpy.types.Operator):
    """Stop for now, keeping what was received"""

    bl_idname = "downloads.pause"
    bl_label = "Pause"
    for_all = "Stop every download for now, keeping what was received"

    def act(self, context: Any) -> None:
        self.each(context, current().pause, "QUEUED", "RUNNING")
        current().flush()


class _Restarts(_OnRows):
    """Puts rows back into the queue and has them run."""

    poll = classmethod(_is_online)

    def restart(self, context: Any, *statuses: str) -> None:
        rows = self.each(context, current().queue, *statuses)
        if cut := next((row for row in rows if row.is_cut), None):
            self.report({"WARNING"}, f"{cut.name}: {cut.error}")
        self.start_run()

    def start_run(self) -> None:
        """Have what is QUEUED run, unless a run goes on that takes it."""
        session = current()
        if session.run:
            session.run.recall()  # else what was handed over ahead of time would come before these
        session.flush()
        if session.wants_run and (why := watch.invoke()):
            self.report({"WARNING"}, f"Downloads were paused. {why}")


class DOWNLOADS_OT_resume(_Restarts, bpy.types.Operator):
    """Go on where the download was paused"""

    bl_idname = "downloads.resume"
    bl_label = "Resume"
    for_all = "Go on with every download that is paused"

    def act(self, context: Any) -> None:
        self.restart(context, "PAUSED")


class DOWNLOADS_OT_retry(_Restarts, bpy.types.Operator):
    """Try again, using what was received"""

    bl_idname = "downloads.retry"
    bl_label = "Retry"
    for_all = "Try all downloads again that failed or were cancelled, using what was received"

    def act(self, context: Any) -> None:
        self.restart(context, "FAILED", "CANCELLED")


class DOWNLOADS_OT_replace_link(_OnOne, _Restarts, _Asking, bpy.types.Operator):
    """Go on with another link to the same file, using what was received: the old one may have expired"""

    bl_idname = "downloads.replace_link"
    bl_label = "Replace Link"

    url: bpy.props.StringProperty(
        name="New Link",
        description="Where the same file can be had. It may end in #sha256=…",
        options={"SKIP_SAVE"},
    )

    def ask(self, context: Any, row: "Download") -> set[str]:
        if self.url.strip() or bpy.app.background:
            return self.execute(context)
        self.url = next(iter(texts.find_links(context.window_manager.clipboard)), "")
        return self.confirm(context, width=DIALOG_WIDTH, confirm_text="Replace")

    def show(self, layout: Any, context: Any) -> None:
        if row := self.find(context):
            layout.label(text=row.name, translate=False)
        layout.use_property_split = True
        layout.prop(self, "url")

    def act_on(self, context: Any, row: "Download") -> None:
        current().replace_link(row, self._link())
        self.start_run()

    def _link(self) -> "Link":
        """The one link that was given. Raises TransferError."""
        links, problems = texts.parse(self.url)
        if problems:
            raise job.TransferError(problems[0])
        if len(links) != 1:
            raise job.TransferError("Give one link: the new one for this download")
        return links[0]


class DOWNLOADS_OT_change_folder(_OnOne, _Restarts, bpy.types.Operator):
    """Go on in another folder, with what was received where that is on the same disk"""

    bl_idname = "downloads.change_folder"
    bl_label = "Change Folder"

    directory: bpy.props.StringProperty(name="Folder", subtype="DIR_PATH", options={"SKIP_SAVE"})
    filter_folder: bpy.props.BoolProperty(default=True, options={"HIDDEN", "SKIP_SAVE"})

    def ask(self, context: Any, row: "Download") -> set[str]:
        self.directory = os.path.join(row.directory, "")
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def act_on(self, context: Any, row: "Download") -> None:
        current().change_folder(row, settings.folder(self.directory))
        self.start_run()


class _Removing(_Asking):
    """Takes rows out of the list; asks what is to become of what was received, where there is any."""

    delete_partial: bpy.props.BoolProperty(
        name="Delete Partial Files", description="Delete what was received", options={"SKIP_SAVE"}
    )

    def rows(self, context: Any) -> "list[Download]":
        """Those that are there yet."""
        raise NotImplementedError

    def ask_about(self, context: Any, rows: "list[Download]") -> set[str]:
        """Open a dialog, where one is needed."""
        if bpy.app.background or not queue.received_by(rows):
            return self.execute(context)
        return self.confirm(context, title="Remove from List", confirm_text="Remove")

    def show(self, layout: Any, context: Any) -> None:
        if rows := self.rows(context):
            drawing.partial(self, rows)

    def remove(self, *rows: "Download") -> None:
        current().remove(*rows, delete=self.delete_partial)
        current().flush()


class DOWNLOADS_OT_remove(_OnOne, _Removing, bpy.types.Operator):
    """Take the download out of the list, cancelling it first; a finished file stays"""

    bl_idname = "downloads.remove"
    bl_label = "Remove from List"

    def ask(self, context: Any, row: "Download") -> set[str]:
        return self.ask_about(context, [row])

    def act_on(self, context: Any, row: "Download") -> None:
        self.remove(row)

    def rows(self, context: Any) -> "list[Download]":
        row = self.find(context)
        return [row] if row else []


REMOVED = [
    ("ALL", "All", "Empty the list, cancelling what is not finished"),
    ("FAILED", "Failed", "Take what failed out of the list"),
    ("CANCELLED", "Cancelled", "Take what was cancelled out of the list"),
    ("FAILED_AND_CANCELLED", "Failed and Cancelled", "Take what failed or was cancelled out"),
]


class DOWNLOADS_OT_remove_all(_Removing, bpy.types.Operator):
    """Take several downloads out of the list, cancelling them first; finished files stay"""

    bl_idname = "downloads.remove_all"
    bl_label = "Remove All"

    which: bpy.props.EnumProperty(name="Which", items=REMOVED, options={"SKIP_SAVE"})

    _asked_of = None
    """The uids of the rows that a dialog told of: what comes or fails while it is open was not agreed to."""

    @classmethod
    def description(cls, context: Any, properties: Any) -> str:
        return _description(REMOVED, properties.which)

    def invoke(self, context: Any, event: Any) -> set[str]:
        current().take_in()
        rows = self.rows(context)
        self._asked_of = frozenset(row.uid for row in rows)
        return self.ask_about(context, rows)

    def act(self, context: Any) -> None:
        current().take_in()
        self.remove(*self.rows(context))

    def rows(self, context: Any) -> "list[Download]":
        rows, asked_of = current().rows.of(self.which), self._asked_of
        return rows if asked_of is None else [row for row in rows if row.uid in asked_of]


class DOWNLOADS_OT_clear(_Acting, bpy.types.Operator):
    """Take finished and skipped downloads out of the list; their files stay"""

    bl_idname = "downloads.clear"
    bl_label = "Clear Finished"

    def act(self, context: Any) -> None:
        current().clear()
        current().flush()


MOVES = [
    ("TOP", "To Top", "Have this download start first"),
    ("UP", "Up", "Have this download start one earlier"),
    ("DOWN", "Down", "Have this download start one later"),
    ("BOTTOM", "To Bottom", "Have this download start last"),
]


class DOWNLOADS_OT_move(_OnOne, bpy.types.Operator):
    """Change the order in which downloads start"""

    bl_idname = "downloads.move"
    bl_label = "Move"

    direction: bpy.props.EnumProperty(name="Direction", items=MOVES, default="UP", options={"SKIP_SAVE"})

    @classmethod
    def description(cls, context: Any, properties: Any) -> str:
        return _description(MOVES, properties.direction)

    def act_on(self, context: Any, row: "Download") -> None:
        current().move(row, self.direction, context.window_manager.downloads.show)
        current().flush()  # which keeps the active row active


class DOWNLOADS_OT_open_folder(_OnOne, bpy.types.Operator):
    """Show the file in its folder"""

    bl_idname = "downloads.open_folder"
    bl_label = "Show in Folder"

    def act_on(self, context: Any, row: "Download") -> None:
        folder = os.path.dirname(row.filepath) or row.directory
        where = words.readable(folder)
        is_there, has_file = workers.answer_of(
            folder, lambda path: (os.path.isdir(path), os.path.exists(row.filepath))
        )
        if not is_there:
            raise job.TransferError(f"The folder “{where}” is not there any more")
        if not portable.show(row.filepath if has_file else "", folder):
            raise job.TransferError(f"Blender found no file manager. The folder is “{where}”")


class DOWNLOADS_OT_import_file(_OnOne, bpy.types.Operator):
    """Bring the file into the scene, at the 3D cursor"""

    bl_idname = "downloads.import_file"
    bl_label = "Import"

    def act_on(self, context: Any, row: "Download") -> None:
        from .session.unpacking import ImportProblem

        try:
            where = current().imports.import_now(row)
        except ImportProblem as problem:
            raise job.TransferError(f"{row.name}: {problem}") from problem
        if where:
            self.report({"INFO"}, f"{row.name}: {where}")
        current().mirror.flush()


class DOWNLOADS_OT_add_links(_Acting, bpy.types.Operator):
    """Take the links out of files that were dropped: texts, internet shortcuts, a Mac's or Linux's links"""

    bl_idname = "downloads.add_links"
    bl_label = "Add Links from Files"
    complaint = "WARNING"

    filepath: bpy.props.StringProperty(subtype="FILE_PATH", options={"SKIP_SAVE", "HIDDEN"})
    directory: bpy.props.StringProperty(subtype="DIR_PATH", options={"SKIP_SAVE", "HIDDEN"})
    files: bpy.props.CollectionProperty(
        type=bpy.types.OperatorFileListElement, options={"SKIP_SAVE", "HIDDEN"}
    )

    def act(self, context: Any) -> None:
        paths = [os.path.join(self.directory, file.name) for file in self.files] or [self.filepath]
        links = "\n".join(map(texts.read_links, paths))
        if not links.strip():
            raise job.TransferError("No link found in the file")
        state = context.window_manager.downloads
        state.urls = texts.add_links(state.urls, links)
        bpy.ops.downloads.show_list()


class _OnViews:
    """Takes what is dropped on a 3D View, and leaves the rest to others."""

    @classmethod
    def poll_drop(cls, context: Any) -> bool:
        return context.area is not None and context.area.type == "VIEW_3D"


class DOWNLOADS_FH_links(_OnViews, bpy.types.FileHandler):
    """Files with links that are dropped on a window"""

    bl_idname = "DOWNLOADS_FH_links"
    bl_label = "Links to Download"
    bl_import_operator = "downloads.add_links"
    bl_file_extensions = ".txt;.url;.webloc;.desktop"


class DOWNLOADS_OT_open_list(_Acting, bpy.types.Operator):
    """Choose from the files that a dropped list names, and download them"""

    bl_idname = "downloads.open_list"
    bl_label = "Download Files from a List"
    complaint = "WARNING"
    poll = classmethod(_is_online)

    filepath: bpy.props.StringProperty(subtype="FILE_PATH", options={"SKIP_SAVE", "HIDDEN"})

    def act(self, context: Any) -> None:
        current().ahead.take(texts.read(self.filepath, texts.LIST_SIZE))
        bpy.ops.downloads.start("INVOKE_DEFAULT")


class DOWNLOADS_FH_list(_OnViews, bpy.types.FileHandler):
    """A list of files that is dropped on a window"""

    bl_idname = "DOWNLOADS_FH_list"
    bl_label = "List of Files to Download"
    bl_import_operator = "downloads.open_list"
    bl_file_extensions = ".meta4;.sha256;.sha512;.sha1;.md5"


class DOWNLOADS_OT_copy_path(_OnOne, bpy.types.Operator):
    """Copy where the file is, as a path"""

    bl_idname = "downloads.copy_path"
    bl_label = "Copy Path"

    def act_on(self, context: Any, row: "Download") -> None:
        context.window_manager.clipboard = words.readable(row.filepath or row.directory)


class DOWNLOADS_OT_copy_message(_OnOne, bpy.types.Operator):
    """Copy the whole message, to ask somebody for help with it"""

    bl_idname = "downloads.copy_message"
    bl_label = "Copy Message"

    def act_on(self, context: Any, row: "Download") -> None:
        context.window_manager.clipboard = f"{names.shown(row.url)}: {row.error or row.note}"


class DOWNLOADS_OT_show_list(_Acting, bpy.types.Operator):  # in a menu it would be what F3 finds first
    """Open the list of downloads in the sidebar of the 3D View"""

    bl_idname = "downloads.show_list"
    bl_label = "Show Downloads"
    complaint = "WARNING"

    def act(self, context: Any) -> None:
        areas = context.window.screen.areas if context.window else ()
        areas = [area for area in areas if area.type == "VIEW_3D"]
        if not areas:
            raise job.TransferError("The list is in the sidebar of a 3D View: open one in this window first")
        area = max(areas, key=lambda area: area.width * area.height)
        area.spaces.active.show_region_ui = True
        bpy.app.timers.register(partial(_choose_tab, area.as_pointer()), first_interval=TAB_INTERVAL)


def _choose_tab(address: int) -> None:
    """A sidebar that was closed has its tabs only once it was drawn; the area may be gone by then."""
    areas = (area for window in bpy.context.window_manager.windows for area in window.screen.areas)
    regions = (region for area in areas if area.as_pointer() == address for region in area.regions)
    for region in regions:
        if region.type == "UI":
            with suppress(TypeError):  # the tab is gone
                region.active_panel_category = "Downloads"
            region.tag_redraw()


class DOWNLOADS_OT_add_token(_Asking, bpy.types.Operator):
    """Keep an access token that a server wants to see before it gives a file. It goes nowhere else"""

    bl_idname = "downloads.add_token"
    bl_label = "Add Access Token"

    host: bpy.props.StringProperty(
        name="Server", description="The server's name, as example.org", options={"SKIP_SAVE"}
    )
    token: bpy.props.StringProperty(
        name="Token",
        description="From your account's page on the server. It is kept in a private file of yours",
        subtype="PASSWORD",
        options={"SKIP_SAVE", "HIDDEN"},
    )

    def invoke(self, context: Any, event: Any) -> set[str]:
        current()  # from now on file loads are minded, which take the dialog away
        return self.confirm(context, confirm_text="Add")

    def show(self, layout: Any, context: Any) -> None:
        layout.use_property_split = True
        layout.prop(self, "host", placeholder="example.org")
        layout.prop(self, "token")

    def act(self, context: Any) -> None:
        token, self.token = self.token, ""  # nothing remembers it
        host = settings.tokens.add(self.host, token)
        _tell_tokens()
        self.report({"INFO"}, f"The token for {host} is kept. Press Retry where it was missing")


def _tell_tokens() -> None:
    """A run that goes on shows servers what is known now, too."""
    if host := current().host:
        host.change(tokens=settings.tokens.pairs)


class DOWNLOADS_OT_remove_token(_Acting, bpy.types.Operator):
    """Forget this server's access token"""

    bl_idname = "downloads.remove_token"
    bl_label = "Remove Access Token"

    host: bpy.props.StringProperty(name="Server", options={"SKIP_SAVE"})

    def act(self, context: Any) -> None:
        settings.tokens.remove(self.host)
        _tell_tokens()


class DOWNLOADS_OT_find_leftovers(_Acting, bpy.types.Operator):
    """Look for partial files in the folders that were used, which no list of downloads has any more"""

    bl_idname = "downloads.find_leftovers"
    bl_label = "Find Partial Files"

    def act(self, context: Any) -> None:
        current().look_for_leftovers()


class DOWNLOADS_OT_delete_leftovers(_Asking, bpy.types.Operator):
    """Delete this partial file"""

    bl_idname = "downloads.delete_leftovers"
    bl_label = "Delete Partial Files"

    directory: bpy.props.StringProperty(
        name="Folder", description="Empty: all that were looked into", options={"SKIP_SAVE"}
    )
    name: bpy.props.StringProperty(
        name="Name", description="Empty: all that were found", options={"SKIP_SAVE"}
    )

    @classmethod
    def description(cls, context: Any, properties: Any) -> str:
        return "" if properties.name else "Delete every partial file that was found"

    def invoke(self, context: Any, event: Any) -> set[str]:
        found = self._meant()
        if self.name or not found or bpy.app.background:
            return self.execute(context)
        lost = f"{space.amount(sum(each.size for each in found))} that were received will be gone"
        return self.confirm(context, lost, title="Delete All Partial Files?", confirm_text="Delete")

    def act(self, context: Any) -> None:
        current().discard_leftovers(*self._meant())

    def _meant(self) -> "list[Lying]":
        found = current().leftovers or ()
        found = [each for each in found if self.directory in ("", each.directory)]
        return [each for each in found if self.name in ("", each.name)]


class DOWNLOADS_OT_choose_listed(_Acting, bpy.types.Operator):
    """Choose all files of the list, or none"""

    bl_idname = "downloads.choose_listed"
    bl_label = "Choose"

    is_chosen: bpy.props.BoolProperty(options={"SKIP_SAVE"})

    @classmethod
    def description(cls, context: Any, properties: Any) -> str:
        return "Choose all files of the list" if properties.is_chosen else "Choose no file of the list"

    def act(self, context: Any) -> None:
        listed = context.window_manager.downloads.listed
        listed.foreach_set("is_chosen", [self.is_chosen] * len(listed))  # which tells no file of its own
        popup.draw_again()


class DOWNLOADS_OT_paste(_Acting, bpy.types.Operator):
    """Add every link that is on the clipboard, whatever text is around it"""

    bl_idname = "downloads.paste"
    bl_label = "Paste Links"
    complaint = "WARNING"

    def act(self, context: Any) -> None:
        state = context.window_manager.downloads
        copied = texts.add_links("", context.window_manager.clipboard)
        if not copied:
            raise job.TransferError(texts.NOT_FOUND)
        state.urls = texts.add_links(state.urls, copied)


_CLASSES = [cls for name, cls in dict(globals()).items() if name.startswith("DOWNLOADS_")]
_WITH_DIALOGS = [cls for cls in _CLASSES if issubclass(cls, (_Asking, DOWNLOADS_OT_change_folder))]
_with_dialogs = modal.Lingering(DOWNLOADS_OT_start, *_WITH_DIALOGS)


def register(enabled: "Registered") -> None:
    _with_dialogs.register(enabled)
    enabled.classes(*(cls for cls in _CLASSES if cls not in (DOWNLOADS_OT_start, *_WITH_DIALOGS)))
    command = bpy.utils.register_cli_command("downloads", lambda arguments: cli.run(arguments))  # imports it
    enabled.undo(bpy.utils.unregister_cli_command, command)
