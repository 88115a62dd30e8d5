"""One file from the network to the disk: blocking, restartable, interruptible.

Nothing in this package knows Blender and nothing in it starts a thread, so it can be tested,
measured, reused, and run in a child process. `requests` is imported on first use.
"""
